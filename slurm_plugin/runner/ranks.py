"""A container that runs on every rank: a job step that srun starts, instead of a child of the runner.

srun is our child and its output is the container's; the ranks are children of Slurm's own daemons on each node. srun is
never signalled: TERM would make it kill the ranks. What they run is, on each node by another step, so that they can end by
themselves. (scancel would signal the runtime's processes as well; Apptainer's first process, when a signal comes after
its command's end, ends with 128 + that signal, and the command's exit code is lost.)
Whoever enters the container (exec, probes, hooks) enters rank 0, which is on this node, the first.
"""

import json
import os
import signal
import sys
from typing import Any, Dict, List, Tuple

from . import gate
from .loop import Promise
from .plan import Ranks
from .process import Launch, StartError, Stdio, start
from .rank import RANK, remove_earlier, shared_memory
from .rankspec import RankSpec, write_spec
from .runtimes import Setting
from .shared import Shared

_SCANCEL_SECONDS = 30.0
_CLEAN_SECONDS = 30.0
_SIGNAL_SECONDS = 10.0
_LOOK_SECONDS = 0.1
_OTHERS = ("SLURM_CPU_BIND", "SLURM_DISTRIBUTION", "SLURM_GTIDS", "SLURM_STEP_")  # of the batch step, not for another


def _find(name: str, path: str) -> str:
    for directory in path.split(":"):
        candidate = os.path.join(directory, name)
        if directory and os.access(candidate, os.X_OK):
            return candidate
    raise StartError("%s is not installed on this node: not found in %s" % (name, path or "an empty PATH"))


def environment(host: Dict[str, str]) -> Dict[str, str]:
    """Return what srun is started with: the job's own environment, of which nothing is the pod's."""
    return {name: value for name, value in host.items() if not name.startswith(_OTHERS)}


def options(ranks: Ranks) -> Tuple[str, ...]:
    """Return srun's options for a step of all ranks. Pure."""
    found: List[str] = ["--export=ALL", "--overlap", "--nodes=%d" % ranks.nodes, "--ntasks=%d" % ranks.ntasks]
    found += ["--ntasks-per-node=%d" % ranks.tasks_per_node, "--cpus-per-task=%d" % ranks.cpus_per_task]
    found += ["--mpi=" + ranks.mpi] if ranks.mpi else []
    found += ["--gpu-bind=none"] if not any(word.startswith("--gpu-bind=") for word in ranks.arguments) else []
    found += ["--label"] if ranks.label else []
    return tuple(found + ["--unbuffered", "--input=none", "--chdir=/"]) + ranks.arguments


def _us(*arguments: str) -> Tuple[str, ...]:
    """Return how this very program is started on another node: by the same Python, from the same archive."""
    return (sys.executable, "-I", "-S", "-B", os.path.abspath(sys.argv[0])) + arguments


class RankStep:
    """One run of such a container. ``run`` is the run's name, of which it makes its files."""

    def __init__(self, shared: Shared, setting: Setting) -> None:
        self._shared = shared
        self._setting = setting
        self._zero: Dict[str, Any] = {}
        self._path = shared.directory.ranks(os.path.basename(setting.scratch))  # of what the ranks are told

    def launch(self) -> Launch:
        """Write what the ranks are told; return srun's command line. StartError: there is no srun; OSError."""
        shared, setting = self._shared, self._setting
        if setting.container.ranks is None:
            raise ValueError("container %s has no ranks" % setting.container.name)
        run = os.path.basename(setting.scratch)
        write_spec(self._path, self._spec(run))
        if shared.runtime.ISOLATED:
            gate.make(shared.runtime.gate_directory(setting))
        remove_earlier(os.path.dirname(setting.scratch), setting.container.name, run)
        before, _ranks = shared.rank_specs.get(setting.container.name, (self._path, None))
        shared.rank_specs[setting.container.name] = self._path, setting.container.ranks
        if before != self._path:
            os.unlink(before)  # of the run before: a crash loop has no end
        srun = _find("srun", shared.host.get("PATH", ""))
        return Launch(
            (srun,) + options(setting.container.ranks) + _us("rank", self._path), environment(shared.host), "/"
        )

    def _spec(self, run: str) -> RankSpec:
        shared, setting = self._shared, self._setting
        return RankSpec(
            directory=shared.directory.path,
            node=shared.book.facts.node,
            scratch=setting.scratch,
            scratch_name=os.path.basename(shared.scratch.path),
            memory=shared_memory(shared.scratch),
            run=run,
            message_path=shared.directory.termination(setting.container.name),
            pod_ips=shared.book.facts.pod_ips,
            container=setting.container,
            runtime=setting.runtime,
            image=setting.image,
            command=setting.command,
            arguments=setting.arguments,
            working_dir=setting.working_dir,
            environment=setting.environment,
            binds=setting.binds,
        )

    def _rank_zero(self) -> Dict[str, Any]:
        if not self._zero:
            try:
                with open(os.path.join(self._setting.scratch, RANK), encoding="ascii") as stream:
                    self._zero = json.load(stream)
            except FileNotFoundError:
                return {}
        return self._zero

    def root(self) -> int:
        """Return the process of rank 0 below which its container is; 0 while it is not there."""
        return int(self._rank_zero().get("pid", 0))

    def pmi(self) -> str:
        """Return which process manager interface srun offers the ranks, empty while that is not known."""
        return str(self._rank_zero().get("pmi", ""))

    async def signal(self, number: int, ended: Promise) -> None:
        """Signal what every rank runs; wait for the step to begin if it has not. KILL is for all processes of the step."""
        loop, shared = self._shared.loop, self._shared
        while not self._rank_zero() and not ended.done:
            await loop.first(ended, timeout=_LOOK_SECONDS)
        if ended.done:
            return
        if number != signal.SIGKILL and self._setting.container.ranks is not None:
            words = _everywhere(self._setting.container.ranks.nodes)
            words += _us("rank", "--signal", str(number), self._path)
            if await _run(shared, words, _SIGNAL_SECONDS) == 0:
                return
        step = "%s.%s" % (shared.host.get("SLURM_JOB_ID", ""), self._rank_zero()["step"])
        await _run(shared, ("scancel", "--quiet", "--signal=%d" % number, step), _SCANCEL_SECONDS)


def _everywhere(nodes: int) -> Tuple[str, ...]:
    """Return the beginning of a command that runs once on each node of the job."""
    words: Tuple[str, ...] = ("srun", "--export=ALL", "--overlap", "--nodes=%d" % nodes, "--ntasks=%d" % nodes)
    return words + ("--ntasks-per-node=1", "--mpi=none", "--gres=none", "--chdir=/", "--quiet", "--input=none")


async def _run(shared: Shared, words: Tuple[str, ...], seconds: float) -> int:
    """Run a command of Slurm's; what it complains of stands in the job's output. Return its wait status, -1 if it has none."""
    try:
        argv = (_find(words[0], shared.host.get("PATH", "")),) + words[1:]
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            pid, ended = start(shared.loop, Launch(argv, environment(shared.host), "/"), Stdio(nothing, 2, 2, False))
        finally:
            os.close(nothing)
    except (StartError, OSError) as error:  # OSError: the ranks may have left no room for another process
        sys.stderr.write("slurmlet: %s can't be started: %s\n" % (words[0], error))
        return -1
    if await shared.loop.first(ended, timeout=seconds) is None:
        sys.stderr.write("slurmlet: %s (process %d) does not end\n" % (words[0], pid))
        return -1
    return int(ended.result())


async def clean(shared: Shared) -> None:
    """Remove what ranks have made on other nodes than this one. Where Slurm ends the job itself there is no step for it."""
    for path, ranks in shared.rank_specs.values():
        if ranks.nodes > 1:
            await _run(shared, _everywhere(ranks.nodes) + _us("rank", "--clean", path), _CLEAN_SECONDS)
            return
