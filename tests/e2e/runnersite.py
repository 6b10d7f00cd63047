"""Pod runners on the testbed's site, as an ordinary user and without Slurm: the archive, started by the site's Python."""

import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from slurm_plugin import archive
from slurm_plugin.runner import plan
from slurm_plugin.runner.backoff import Timings
from tests.slurm_plugin.runner.jobs import PROJECT, QUICK, Job

from .runtimes import own_words
from .testbed import Testbed


class SiteJob(Job):
    """A job directory on the site's shared file system; its runner is the archive, started by the site's Python.

    ``executable``: the Apptainer; empty for a plan that has another runtime.
    """

    def __init__(
        self, site: "Site", what: plan.Plan, env: Mapping[str, Sequence[plan.EnvEntry]] | None, executable: Path | str
    ) -> None:
        directory = site.share / secrets.token_hex(4)
        if executable:
            what = what._replace(runtime=plan.Runtime("apptainer", str(executable), ()))
        what = what._replace(images=str(site.images))
        super().__init__(directory / "job", what, env)
        site.give(directory)
        self.site = site

    def start(
        self,
        *,
        job_id: str = "42",
        restart: int = 0,
        timings: Timings = QUICK,
        python: str = "",
        source: Path = PROJECT,  # the archive's, always
    ) -> subprocess.Popen[str]:
        variables = [
            "PATH=/usr/bin:/bin",
            f"HOME=/home/{self.site.user}",
            f"SLURM_JOB_ID={job_id}",
            f"SLURM_RESTART_COUNT={restart}",
        ]
        argv = [python or "/usr/bin/python3", "-I", "-S", "-B", str(self.site.archive), "run", self.directory.path]
        process = self.site.start(["env", "-i", *variables, *argv])
        self.processes.append(process)
        return process

    def log(self, name: str, restart: int = 0) -> list[str]:
        return own_words(super().log(name, restart))


class Site:
    """The site as its user `alice` sees it."""

    user = "alice"

    def __init__(self, testbed: Testbed, share: Path) -> None:
        self.registry = testbed.environment["SLURMLET_TESTBED_REGISTRY"]
        self._pid = testbed.environment["SLURMLET_TESTBED_SITE_PID"]
        self.share = share
        self.images = share / "images"
        self.images.mkdir(parents=True)
        built = archive.build()
        self.archive = share / "slurmlet.pyz"
        self.archive.write_bytes(built.data)
        self.give(share)

    def give(self, path: Path) -> None:
        subprocess.run([*self._enter(), "chown", "-R", f"{self.user}:{self.user}", str(path)], check=True, timeout=30)

    def _enter(self) -> list[str]:
        return ["nsenter", f"--target={self._pid}", "--mount", "--"]

    def start(self, argv: list[str]) -> subprocess.Popen[str]:
        user = [f"--reuid={self.user}", f"--regid={self.user}", "--init-groups"]
        return subprocess.Popen(
            [*self._enter(), "setpriv", *user, "--", *argv],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
        )  # fmt: skip

    def run(self, *argv: str) -> str:
        """Return what a command says that has to succeed."""
        process = self.start(["env", "-i", "PATH=/usr/bin:/bin", f"HOME=/home/{self.user}", *argv])
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
        return output

    def image(self, name: str, policy: str = "IfNotPresent") -> plan.Image:
        return plan.Image(name, f"docker://{self.registry}/{name}", policy, insecure=True)
