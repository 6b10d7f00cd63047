"""What only the compute node knows: its name and its address."""

import os
import socket
from typing import Tuple

_NOWHERE = "192.0.2.1"  # TEST-NET-1: the kernel only picks a route, nothing is sent


def node_name() -> str:
    """Return Slurm's name of this node."""
    return os.environ.get("SLURMD_NODENAME") or os.uname().nodename


def addresses() -> Tuple[str, ...]:
    """Return the address that the default route uses; else the host name's; else loopback."""
    for find in (_of_default_route, _of_host_name):
        try:
            address = find()
        except OSError:
            continue
        if address and not address.startswith("127."):
            return (address,)
    return ("127.0.0.1",)


def _of_default_route() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((_NOWHERE, 9))
        return str(probe.getsockname()[0])


def _of_host_name() -> str:
    return socket.gethostbyname(os.uname().nodename)
