"""The name of every file that vkubelet, sbatch, the pod runner and the host agent exchange.

Names only: nothing here touches a file system. The module is part of the runner's archive, hence Python 3.6 syntax.
"""

import posixpath
import re

# Slurm's NO_VAL (slurm.h): this and what is larger is no job's id.
NO_JOB_ID = 0xFFFFFFFE
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


def check_uid(uid: str) -> str:
    """Return ``uid`` if it is safe as one directory name; raise ValueError otherwise."""
    if not _UID.match(uid):
        raise ValueError("not a pod UID: %r" % (uid,))
    return uid


class JobDir:
    """The directory of one pod's job: ``<root>/pods/<pod uid>/``."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    @property
    def uid(self) -> str:
        """The pod's UID."""
        return posixpath.basename(self.path)

    @property
    def root(self) -> str:
        """The root directory that it lies in."""
        return posixpath.dirname(posixpath.dirname(self.path))

    @property
    def plan(self) -> str:
        """What the runner is to run (``runner.plan.Plan`` as JSON, 0600)."""
        return posixpath.join(self.path, "plan.json")

    @property
    def script(self) -> str:
        """The batch script as given to sbatch."""
        return posixpath.join(self.path, "job.sh")

    @property
    def job_id(self) -> str:
        """The Slurm job id, written after sbatch answered; absent while the outcome is unknown."""
        return posixpath.join(self.path, "job-id")

    @property
    def state(self) -> str:
        """What the runner says of itself and its containers (``runner.state.RunnerState`` as JSON)."""
        return posixpath.join(self.path, "state.json")

    @property
    def output(self) -> str:
        """What Slurm and the runner itself print; no container writes here."""
        return posixpath.join(self.path, "job.log")

    @property
    def run(self) -> str:
        """Small files of the running job: claims, the grace period, usage."""
        return posixpath.join(self.path, "run")

    @property
    def claim(self) -> str:
        """Made by an atomic link(): the one job run that owns this pod."""
        return posixpath.join(self.run, "claim")

    @property
    def grace(self) -> str:
        """Seconds that the current termination request grants; read by the runner when TERM arrives."""
        return posixpath.join(self.run, "grace")

    def ranks(self, run: str) -> str:
        """What each rank of a container's run is told (``runner.rankspec.RankSpec`` as JSON, 0600)."""
        return posixpath.join(self.run, "ranks-%s.json" % run)

    @property
    def usage(self) -> str:
        """What the running containers have used (``runner.usage.Usage`` as JSON)."""
        return posixpath.join(self.run, "usage.json")

    @property
    def door(self) -> str:
        """Where, on its node, the runner's socket is: ``{"job_id", "restart", "path"}`` as JSON (``runner.door``)."""
        return posixpath.join(self.run, "door")

    @property
    def volumes(self) -> str:
        """The directory of all volumes whose content comes from the API server."""
        return posixpath.join(self.path, "volumes")

    def volume(self, name: str) -> str:
        """The directory of one volume's content."""
        return posixpath.join(self.volumes, name)

    def env(self, container: str) -> str:
        """A container's environment (``runner.plan.EnvEntry`` list as JSON, 0600)."""
        return posixpath.join(self.path, "env", container + ".json")

    @property
    def logins(self) -> str:
        """User names and passwords for registries (``runner.logins.Login`` list as JSON, 0600); absent without any."""
        return posixpath.join(self.path, "logins.json")

    @property
    def ephemeral(self) -> str:
        """The directory of the containers that were added to the running pod."""
        return posixpath.join(self.path, "ephemeral")

    def ephemeral_container(self, name: str) -> str:
        """One of these: ``container.json`` (``runner.plan.Container``) and ``env.json`` (as ``env``), both 0600."""
        return posixpath.join(self.ephemeral, name)

    @property
    def logs(self) -> str:
        """The directory of all containers' logs."""
        return posixpath.join(self.path, "logs")

    def log(self, container: str, restart_count: int) -> str:
        """One run of a container: its output in the CRI log format."""
        return posixpath.join(self.logs, container, "%d.log" % restart_count)

    def termination(self, container: str) -> str:
        """What the container left as its termination message."""
        return posixpath.join(self.path, "termination", container)


class Root:
    """The directory that one Slurm user's pods live under; shared by login and compute nodes.

    ``images``: the image cache that all jobs of the user share; by default a directory in this one.
    """

    __slots__ = ("images", "path")

    def __init__(self, path: str, images: str = "") -> None:
        self.path = path
        self.images = images or posixpath.join(path, "images")

    @property
    def pods(self) -> str:
        """The directory of all job directories."""
        return posixpath.join(self.path, "pods")

    def job_dir(self, uid: str) -> JobDir:
        """The job directory of the pod with this UID; ValueError if the UID is not a safe name."""
        return JobDir(posixpath.join(self.pods, check_uid(uid)))

    @property
    def owner(self) -> str:
        """Whose root this is: one virtual node of one Kubernetes cluster, in words."""
        return posixpath.join(self.path, "owner")

    def archive(self, digest: str) -> str:
        """The runner's zipapp, named by its SHA-256 hex digest."""
        return posixpath.join(self.path, "bin", "slurmlet-%s.pyz" % digest[:32])
