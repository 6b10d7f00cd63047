"""Sidecars under test: `slurmlet sidecar` processes on the login node, started, killed and started again."""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from sidecar.config import DialSettings, ServerSettings
from testbed.paths import Layout

from .agents import service
from .testbed import PROJECT_ROOT, Testbed
from .waiting import wait_until


class Sidecar:
    """A sidecar on the login node, on a unix socket that both sides see. ``user``: whose process it is.

    ``serves``: ``serve`` for its own API, ``interlink`` for interLink's. ``slurm``: what its section says beyond the host;
    ``pods``: beyond the registry; ``policy``: who is whom. ``environment``: its own, beyond the usual. ``calls``: where it calls, with certificates in its own ``directory``. ``listens``: how it
    is served instead of on the socket, with certificates there.
    """

    def __init__(
        self, testbed: Testbed, node: str, *, serves: str = "serve", slurm: dict[str, Any],
        pods: dict[str, Any] | None = None, calls: Callable[[Path], DialSettings] | None = None,
        listens: Callable[[Path], ServerSettings] | None = None, user: str = "alice",
        policy: list[dict[str, Any]] | None = None, environment: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.node = node
        self.directory = Layout.from_environment().share / f"sidecar-{node}"
        self.directory.mkdir(exist_ok=True)
        self.socket = self.directory / "sidecar.sock"
        self.log = self.directory / "sidecar.log"
        self.tokens = self.directory / "tokens"
        self.tokens.write_text("of-the-end-to-end-test\n")
        registry = testbed.environment["SLURMLET_TESTBED_REGISTRY"]
        self._port = 0
        served: dict[str, Any] = {"unix_socket": str(self.socket), "token_file": str(self.tokens)}
        if listens is not None:
            settings = listens(self.directory)
            self._port, served = settings.port, settings.model_dump(exclude_none=True)
        configuration = {
            serves: served,
            "node": {"name": node},
            "slurm": {"host": {"kind": "local"}, **slurm},
            "pods": {"registries": [{"registry": "docker.io", "mirror": registry, "insecure": True}]} | (pods or {}),
        }
        if policy is not None:
            configuration["policy"] = policy
        if calls is not None:
            configuration["dial"] = calls(self.directory).model_dump(exclude_none=True)
        self._path = self.directory / "sidecar.yaml"
        self._path.write_text(yaml.safe_dump(configuration))
        self._uid = int(testbed.run(*testbed.inside("id", "-u", user)).stdout)
        for entry in (self.directory, *(path for path in self.directory.rglob("*") if not path.is_socket())):
            os.chown(entry, self._uid, self._uid)
        self._python = testbed.inside(*service(user, **(environment or {})))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        words = ("-m", "slurmlet", "sidecar", "--config", str(self._path))
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                (*self._python, *words), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=PROJECT_ROOT, start_new_session=True,
            )  # fmt: skip
        wait_until(f"the sidecar to listen (log: {self.log})", self._listens)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        if not self._port:
            return self.socket.exists()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def pods(self) -> Path:
        """Where its pods' job directories are, as alice."""
        return Layout.from_environment().site / "home" / "alice" / ".slurmlet" / self.node / "pods"
