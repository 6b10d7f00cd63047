"""An sshd of the tests' own on the login node, beside the testbed's: a gateway that believes certificates and shows one."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from testbed.paths import Layout
from testbed.ports import ADDRESS, Port

from .testbed import Testbed
from .waiting import wait_until

INDEX = 45
"""Among the ports left to agents; no agent of a test has it."""


def keygen(*words: str) -> None:
    subprocess.run(
        ("ssh-keygen", "-q", *words), check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=30
    )


class Gateway:
    """Trusts users' certificates signed by ``user_ca``; its own host certificate, for 127.0.0.1, is of ``host_ca``."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        layout = Layout.from_environment()
        self.port = layout.port(Port.AGENT, INDEX + 50 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))
        self.directory = layout.share / f"gateway-{self.port}"
        shutil.rmtree(self.directory, ignore_errors=True)  # what a test that was killed has left
        self.directory.mkdir()
        self.user_ca, self.host_ca, self.host_key = (self.key(name) for name in ("user-ca", "host-ca", "host"))
        self.certify_host("127.0.0.1")
        self._process: subprocess.Popen[bytes] | None = None

    def key(self, name: str, kind: str = "ed25519") -> Path:
        """Make a key pair."""
        path = self.directory / name
        if not path.exists():
            keygen("-t", kind, "-N", "", "-f", str(path))
        return path

    def public(self, key: Path) -> str:
        """The public half, without the comment."""
        return " ".join(key.with_suffix(".pub").read_text().split()[:2])

    def certify_host(self, principals: str, *, validity: str = "-1h:+1h", ca: Path | None = None) -> None:
        """Sign the host key anew, as ssh-keygen(1) does it. sshd reads it when it starts."""
        key = str(self.host_key.with_suffix(".pub"))
        keygen("-s", str(ca or self.host_ca), "-I", "gateway", "-h", "-n", principals, "-V", validity, key)

    def certify_user(self, key: Path, principals: str, *, validity: str = "-1h:+1h", ca: Path | None = None) -> None:
        """Sign a user's key; the certificate lies beside it."""
        public = str(key.with_suffix(".pub"))
        keygen("-s", str(ca or self.user_ca), "-I", "user", "-n", principals, "-V", validity, public)

    def move_certificate(self, key: Path, name: str) -> Path:
        """Put a key's certificate where nobody looks for it."""
        return Path(f"{key}-cert.pub").rename(self.directory / name)

    def start(self) -> None:
        configuration = self.directory / "sshd_config"
        configuration.write_text(
            f"ListenAddress {ADDRESS}:{self.port}\nHostKey {self.host_key}\nHostCertificate {self.host_key}-cert.pub\n"
            f"TrustedUserCAKeys {self.user_ca}.pub\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "UsePAM no\nPidFile none\n"
            # A test that is refused on purpose must not keep the next one out.
            "PerSourcePenalties no\nMaxStartups 100\nMatch User carol\n  AllowTcpForwarding no\n"
        )
        enter = ("nsenter", "-t", self._testbed.environment["SLURMLET_TESTBED_SITE_PID"], "-m", "--")
        daemon = ("setpriv", "--pdeathsig=KILL", "--", "/usr/sbin/sshd", "-D", "-e", "-f", str(configuration))
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen((*enter, *daemon), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(f"sshd to answer (log: {self.directory}/log)", self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "log").read_text()  # somebody else's may answer there
        try:
            with socket.create_connection((ADDRESS, self.port), timeout=2) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
