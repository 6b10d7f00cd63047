"""``rank SPEC``: what srun starts for each rank. It makes what the node needs, and becomes the container.

Between srun and the program there is a container that would hide from it all that srun has told: the rank's PMI or PMIx
variables, its SLURM_* and its devices, and PMIx's directories on the node. Here they are carried in. ``rank --signal N
SPEC`` signals what the ranks of a node run; ``rank --clean SPEC`` removes what was made on a node.
"""

import fcntl
import glob
import json
import os
import sys
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from slurm_plugin.jobdir import JobDir

from . import volumes
from .gate import make as make_gate
from .hosts import write_hosts
from .mounts import Sources, binds, with_own
from .node import node_name
from .plan import plan_from_json
from .process import StartError, like_a_new_process, send
from .proctree import started_at
from .rankspec import RankSpec, read_spec
from .runtimes import Bind, InexpressibleError, Setting, load
from .swaps import guard

RANK = "rank.json"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - where MPI libraries look for it
_PMIX_VARIABLES = (
    "PMIX_SERVER_TMPDIR",
    "PMIX_NSDIR",
    "PMIX_TMPDIR",
    "PMIX_DSTORE_ESH_BASE_PATH",
    "PMIX_DSTORE_21_BASE_PATH",
)
_COMMON = ("/", "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - everybody's: the container has its own
CANNOT_START = 128
_BEGUN_SECONDS = 2.0  # in which a step's ranks have begun, once its first has
_LOOK_SECONDS = 0.05


class Ground(NamedTuple):
    """What a rank stands on: mounts, the directory that is its own, and the memory that its node's ranks share."""

    binds: Tuple[Bind, ...]
    scratch: str
    memory: str


def shared_memory(scratch: volumes.Scratch) -> str:
    """Make what the ranks of a node share as /dev/shm; return a link to it, as for volumes of medium Memory. Idempotent."""
    target = os.path.join(scratch.memory, "ranks")
    os.makedirs(target, mode=0o700, exist_ok=True)
    link = os.path.join(scratch.directory("memory"), ".ranks")
    if not os.path.islink(link):
        os.symlink(target, link)
    return link


def remove_earlier(directory: str, container: str, run: str) -> None:
    """Remove what ranks of a container's earlier runs had here. Idempotent. ``directory``: where all runs have theirs."""
    for name in os.listdir(directory):
        if name.startswith(container + ".") and name != run and not name.startswith(run + "."):
            volumes.remove_tree(os.path.join(directory, name))


def _scratch(spec: RankSpec, base: str) -> volumes.Scratch:
    """Return the scratch space of another node than the first. Emulated nodes share a machine, so it has the node's name."""
    base = base or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - as on the first node
    return volumes.Scratch(base, "%s.%s" % (spec.scratch_name, node_name()))


def _ground(spec: RankSpec) -> Ground:
    """Make what this node needs, once for all its ranks. OSError, VolumeError: it can't be made."""
    rank = os.environ.get("SLURM_PROCID") or "0"
    if node_name() == spec.node:
        own = spec.scratch if rank == "0" else "%s.rank%s" % (spec.scratch, rank)
        return Ground(spec.binds, own, spec.memory)
    directory = JobDir(spec.directory)
    with open(directory.plan, encoding="utf-8") as stream:
        pod = plan_from_json(json.load(stream))
    scratch = _scratch(spec, pod.scratch)
    scratch.make()
    descriptor = os.open(os.path.join(scratch.path, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # a local file system: the node's ranks come at once
        places = volumes.prepare(pod, directory, scratch)
        hosts_file = write_hosts(scratch.path, pod, spec.pod_ips)
        memory = shared_memory(scratch)
        remove_earlier(scratch.directory("containers"), spec.container.name, spec.run)
    finally:
        os.close(descriptor)
    own = scratch.directory("containers", "%s.rank%s" % (spec.run, rank))
    sources = Sources(pod.volumes, places, os.path.join(own, "subpaths"))
    found = with_own(binds(spec.container, sources, spec.environment), spec.container, spec.message_path, hosts_file)
    return Ground(found, own, memory)


def pmix_directories(host: Mapping[str, str]) -> List[str]:
    """Return the directories on this node by which PMIx's server and clients share files.

    Slurm names only the server's own; the other is ``spmix_appdir_<uid>_<job>.<step>`` in its TmpFS, which no variable
    tells (src/plugins/mpi/pmix, 22.05 to 26.05): it is looked for where that is by default, or has the node's name.
    """
    named = [(host.get(name) or "").rstrip("/") for name in _PMIX_VARIABLES]
    bases = [host.get("TMPDIR") or "", host.get("PMIX_SYSTEM_TMPDIR") or "", "/tmp"]  # noqa: S108 - TmpFS' default
    bases += [os.path.join(base, host.get("SLURMD_NODENAME") or "") for base in bases]
    step = "%s.%s" % (host.get("SLURM_JOB_ID"), host.get("SLURM_STEP_ID"))
    for base in bases:
        if base.startswith("/") and "PMIX_RANK" in host:
            named += glob.glob(os.path.join(glob.escape(base), "spmix_appdir_*" + step))
    own = {os.path.realpath(path): None for path in named if path.startswith("/") and path not in _COMMON}
    return [path for path in own if os.path.isdir(path)]


def _binds(ground: Ground, directories: Sequence[str]) -> Tuple[Bind, ...]:
    found: List[Bind] = list(ground.binds)
    targets = {bind.target.rstrip("/") for bind in found}
    if _SHARED_MEMORY not in targets:
        found.append(Bind(ground.memory, _SHARED_MEMORY, False))
    return tuple(found + [Bind(path, path, False) for path in directories if path not in targets])


def _defaults(host: Mapping[str, str], directories: Sequence[str]) -> Dict[str, str]:
    """Return variables that the pod may set otherwise, without which the libraries would fail in a container."""
    # Ranks are in user namespaces of their own, so that none may open another's files by /proc, as UCX would.
    found = {"UCX_POSIX_USE_PROC_LINK": "n"}
    if "PMIX_RANK" in host and not any("spmix_appdir" in path for path in directories):
        found["PMIX_MCA_gds"] = "hash"  # by messages: its files were not found
    return found


def setting_of(spec: RankSpec, ground: Ground, host: Dict[str, str]) -> Setting:
    """Return this rank's run of the container. ``host`` is the environment that srun gave it."""
    first = host.get("SLURM_PROCID") == "0"
    directories = pmix_directories(host)
    return Setting(
        container=spec.container,
        runtime=spec.runtime,
        image=spec.image,
        command=spec.command,
        arguments=spec.arguments,
        working_dir=spec.working_dir,
        environment=dict(_defaults(host, directories), **spec.environment),
        binds=_binds(ground, directories),
        hostname="",
        scratch=ground.scratch,
        host=host,
        gated=first and node_name() == spec.node,
    )


def pmi(host: Dict[str, str]) -> str:
    """Return which process manager interface srun offers: ``pmix``, ``pmi2`` or ``none``."""
    return "pmix" if "PMIX_RANK" in host else "pmi2" if "PMI_RANK" in host else "none"


def _tell(ground: Ground, host: Dict[str, str]) -> None:
    """Leave word of where this rank is: below this process, which becomes the container, and in which step."""
    step = host.get("SLURM_STEP_ID") or host.get("SLURM_STEPID") or ""
    path = os.path.join(ground.scratch, RANK)
    own = {"pid": os.getpid(), "started": started_at(os.getpid()), "step": step, "pmi": pmi(host)}
    with open(path + ".tmp", "w", encoding="ascii") as stream:
        json.dump(own, stream)
    os.rename(path + ".tmp", path)


def run_rank(path: str) -> int:
    """Become the rank's container; returns only if that can't be."""
    host = dict(os.environ)
    try:
        spec = read_spec(path)
        runtime = load(spec.runtime.kind)
        ground = _ground(spec)
        setting = setting_of(spec, ground, host)
        guarded = runtime.ISOLATED and not setting.gated and any(bind.identity for bind in setting.binds)
        if guarded:
            make_gate(runtime.gate_directory(setting))
            setting = setting._replace(gated=True)
        os.makedirs(setting.scratch, mode=0o700, exist_ok=True)
        runtime.prepare(setting)
        launch = runtime.launch(setting)
        if guarded:
            guard(runtime, setting)
        _tell(ground, host)
        like_a_new_process()
        os.chdir(launch.cwd or "/")
        os.execve(launch.argv[0], list(launch.argv), launch.env)  # noqa: S606
    except (OSError, ValueError, KeyError, TypeError, volumes.VolumeError, InexpressibleError, StartError) as error:
        words = (host.get("SLURM_PROCID", "?"), node_name(), error)
        sys.stderr.write("slurmlet: rank %s on %s can't start: %s\n" % words)
    return CANNOT_START


def _here(spec: RankSpec) -> List[str]:
    """Return the directories of the ranks on this node."""
    if node_name() == spec.node:
        return [spec.scratch] + glob.glob(glob.escape(spec.scratch) + ".rank*")
    with open(JobDir(spec.directory).plan, encoding="utf-8") as stream:
        scratch = _scratch(spec, plan_from_json(json.load(stream)).scratch)
    return glob.glob(os.path.join(glob.escape(scratch.path), "containers", glob.escape(spec.run) + ".rank*"))


def _word_of(directory: str) -> Dict[str, Any]:
    try:
        with open(os.path.join(directory, RANK), encoding="ascii") as stream:
            return dict(json.load(stream))
    except FileNotFoundError:
        return {}


def signal_ranks(number: int, path: str) -> int:
    """Signal what each rank on this node runs, and that alone: its runtime's own processes would hide how it ends."""
    spec = read_spec(path)
    runtime = load(spec.runtime.kind)
    expected = spec.container.ranks.tasks_per_node if spec.container.ranks is not None else 1
    deadline = time.monotonic() + _BEGUN_SECONDS
    while True:
        found = [word for word in map(_word_of, _here(spec)) if word]
        if len(found) >= expected or time.monotonic() > deadline:  # the last node may have fewer
            break
        time.sleep(_LOOK_SECONDS)
    for rank in found:
        if started_at(rank["pid"]) == rank["started"]:
            send(runtime.main_process(rank["pid"]), number)
    return 0


def clean(path: str) -> int:
    """Remove what ranks made on this node, unless it is the first: that is the runner's own to remove."""
    spec = read_spec(path)
    if node_name() != spec.node:
        with open(JobDir(spec.directory).plan, encoding="utf-8") as stream:
            _scratch(spec, plan_from_json(json.load(stream)).scratch).remove()
    return 0
