"""What all containers of the pod share, made once by the lifecycle."""

import json
import os
from typing import Any, Dict, Tuple

from slurm_plugin.jobdir import JobDir

from . import plan
from .backoff import Timings
from .book import Book
from .hosts import write_hosts
from .images import Images
from .loop import Loop
from .oom import Kills
from .runtimes import Settled, load
from .volumes import Scratch


class Shared:
    """One pod's common ground. ``stopping`` is done once nothing may be started any more."""

    def __init__(self, loop: Loop, directory: JobDir, pod: plan.Plan, book: Book, timings: Timings) -> None:
        self.loop = loop
        self.directory = directory
        self.book = book
        self.timings = timings
        self.stopping = loop.promise()
        self.runtime: Any = load(pod.runtime.kind)
        self.host = dict(os.environ)
        settled = self.runtime.settle(pod.runtime, self.host) if self.runtime.ISOLATED else Settled(pod.runtime, "")
        self.barred: str = settled.barred  # why no container can be entered
        self.plan = pod._replace(runtime=settled.runtime)
        run = book.facts.run
        base = pod.scratch or self.host.get("TMPDIR") or "/tmp"  # noqa: S108 - the node's own scratch, by default
        self.scratch = Scratch(base, "slurmlet-%s-%s.%d" % (pod.uid, run.job_id or "0", run.restart))
        self.images = Images(loop, directory, pod, book, timings, self._puller_environment())
        self.ooms = Kills()
        self.places: Dict[str, str] = {}
        self.hosts_file = ""
        # What the ranks of a container's last run were told: the path of the file.
        self.rank_specs: Dict[str, Tuple[str, plan.Ranks]] = {}
        self.probe_counts: Dict[Tuple[str, str, str], int] = {}  # container, kind, result
        self.pod_words = "%s_%s(%s)" % (pod.name, pod.namespace, pod.uid)

    def _puller_environment(self) -> Dict[str, str]:
        """Return the environment of Apptainer's pull: the job's own, unpacking where a killed one's remains are removed."""
        result = {name: value for name, value in self.host.items() if not name.startswith("SLURM")}
        result["APPTAINER_TMPDIR"] = result["SINGULARITY_TMPDIR"] = self.scratch.path
        return result

    def environment_of(self, container: plan.Container) -> Tuple[plan.EnvEntry, ...]:
        """Read a container's environment; a missing file is an empty one. OSError, ValueError: it can't be read."""
        path = self.directory.env(container.name)
        if container.kind == plan.EPHEMERAL:
            path = os.path.join(self.directory.ephemeral_container(container.name), "env.json")
        try:
            with open(path, encoding="utf-8") as stream:
                return plan.env_from_json(json.load(stream))
        except FileNotFoundError:
            return ()

    def write_hosts(self) -> None:
        """Make the pod's /etc/hosts."""
        self.hosts_file = write_hosts(self.scratch.path, self.plan, self.book.facts.pod_ips)
