import socket
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from testbed.paths import Layout
from testbed.site import sshd


def test_keys_are_in_the_formats_openssh_reads() -> None:
    key = Ed25519PrivateKey.generate()
    private = serialization.load_ssh_private_key(sshd.private_text(key).encode(), password=None)
    assert isinstance(private, Ed25519PrivateKey)
    assert sshd.public_text(private) == sshd.public_text(key)
    assert sshd.public_text(key).startswith("ssh-ed25519 ")


def test_sshd_listens_on_loopback_only() -> None:
    layout = Layout(cache=Path("/cache"), state=Path("/state"), port_base=30000)
    listening = [line for line in sshd.configuration(layout).splitlines() if line.startswith(("Listen", "Port"))]
    assert listening == ["ListenAddress 127.0.0.1:30011"]


def test_closed_port_does_not_greet() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        assert not sshd.greets(unheard.getsockname()[1])
