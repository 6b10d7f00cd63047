"""sshd on the site's "login node": a loopback port, Debian's own configuration, keys of this testbed only.

Host key and people's keys are made here, so that clients can pin the one and need no password for the other. What is
not said here is OpenSSH's default, MaxSessions 10 among it: clients must live with what they meet elsewhere.
"""

from __future__ import annotations

import socket
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testbed import processes
from testbed.paths import Layout
from testbed.ports import ADDRESS, Port
from testbed.site import users
from testbed.site.namespace import Namespace

DAEMON = "sshd"
_HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
_CONFIGURATION = "/etc/ssh/sshd_config.d/testbed.conf"


class Sshd:
    """The site's sshd. Its client side lies in the state room: one key for each person, and a known_hosts file."""

    def __init__(self, layout: Layout, namespace: Namespace) -> None:
        self._layout = layout
        self._site = namespace

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file with the site's host key and nothing else."""
        return self._layout.site / "ssh" / "known_hosts"

    def key(self, person: users.Person) -> Path:
        """Return the private key (OpenSSH format, no passphrase) that opens `person`'s account."""
        return self._layout.site / "ssh" / person.name

    def ensure(self) -> None:
        """Make what keys are missing, start sshd and return when it answers; idempotent."""
        self._make_host_key()
        for person in users.PEOPLE:
            self._admit(person)
        self._site.write(_CONFIGURATION, configuration(self._layout))
        self._site.directory("/run/sshd")
        self._site.start(DAEMON, ("/usr/sbin/sshd", "-D", "-e"))

        def answers() -> bool:
            processes.require(self._layout, DAEMON)
            return greets(self._layout.port(Port.SSHD))

        processes.wait_until("sshd answers", answers, timeout_seconds=15, log=self._layout.log(DAEMON))

    def stop(self) -> None:
        """Stop sshd; idempotent."""
        processes.stop(self._layout, DAEMON)

    def status(self) -> list[tuple[str, str]]:
        """Return whether sshd runs."""
        return [(DAEMON, "running" if processes.alive(self._layout, DAEMON) else "not running")]

    def environment(self) -> dict[str, str]:
        """Return what a client needs to come in as alice."""
        return {
            "SLURMLET_TESTBED_SSH_HOST": ADDRESS,
            "SLURMLET_TESTBED_SSH_PORT": str(self._layout.port(Port.SSHD)),
            "SLURMLET_TESTBED_SSH_USER": users.ALICE.name,
            "SLURMLET_TESTBED_SSH_KEY": str(self.key(users.ALICE)),
            "SLURMLET_TESTBED_SSH_KNOWN_HOSTS": str(self.known_hosts),
        }

    def _make_host_key(self) -> None:
        if not self._site.exists(_HOST_KEY):
            self._site.write(_HOST_KEY, private_text(Ed25519PrivateKey.generate()), mode=0o600)
        private = serialization.load_ssh_private_key(Path(f"{self._site.root}{_HOST_KEY}").read_bytes(), password=None)
        assert isinstance(private, Ed25519PrivateKey)  # noqa: S101  we wrote it
        self.known_hosts.parent.mkdir(mode=0o755, exist_ok=True)
        port = self._layout.port(Port.SSHD)
        self.known_hosts.write_text(f"[{ADDRESS}]:{port} {public_text(private)}\n", encoding="ascii")

    def _admit(self, person: users.Person) -> None:
        if self.key(person).exists() and self._site.exists(f"{person.home}/.ssh/authorized_keys"):
            return
        private = Ed25519PrivateKey.generate()
        self._site.directory(f"{person.home}/.ssh", owner=person.name, mode=0o700)
        authorized = f"{public_text(private)} {person.name}\n"
        self._site.write(f"{person.home}/.ssh/authorized_keys", authorized, owner=person.name, mode=0o600)
        self.key(person).touch(mode=0o600)
        self.key(person).write_text(private_text(private), encoding="ascii")


def configuration(layout: Layout) -> str:
    """Return sshd_config(5) lines that go before Debian's own: where to listen, and no way in but keys. Pure."""
    return f"""\
ListenAddress {ADDRESS}:{layout.port(Port.SSHD)}
HostKey {_HOST_KEY}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
"""


def private_text(key: Ed25519PrivateKey) -> str:
    """Return a private key in OpenSSH's format."""
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, none).decode("ascii")


def public_text(key: Ed25519PrivateKey) -> str:
    """Return the public half as one line: `ssh-ed25519 AAAA…`."""
    form = serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(serialization.Encoding.OpenSSH, form).decode("ascii")


def greets(port: int) -> bool:
    """Whether an SSH server sends its greeting on this loopback port (RFC 4253, 4.2)."""
    try:
        with socket.create_connection((ADDRESS, port), timeout=2) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
