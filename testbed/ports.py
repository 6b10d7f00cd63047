"""Every port the testbed listens on, in one table; all of them on 127.0.0.1.

A port is an offset from a base that `SLURMLET_TESTBED_PORT_BASE` moves, for a machine where the default range is taken.
"""

from collections.abc import Mapping
from enum import IntEnum

from testbed.errors import TestbedError

ADDRESS = "127.0.0.1"
BASE_VARIABLE = "SLURMLET_TESTBED_PORT_BASE"
DEFAULT_BASE = 21000
SPAN = 600
"""How many ports from the base on belong to the testbed."""


class Port(IntEnum):
    """Offsets from the base."""

    API_SERVER = 0
    ETCD_CLIENT = 1
    ETCD_PEER = 2
    SCHEDULER = 3
    CONTROLLER_MANAGER = 4
    METRICS_SERVER = 5
    REGISTRY = 10
    SSHD = 11
    PRIVATE_REGISTRY = 12
    SLURMCTLD = 20
    SLURMDBD = 21
    SLURMRESTD = 22
    MARIADB = 23
    SLURMD = 30
    """The first slurmd; node number i listens at SLURMD + i, up to 50 of them."""
    SRUN = 100
    """The first of the 300 ports in SrunPortRange."""
    AGENT = 400
    """The first of 200 ports left to node agents; the testbed itself never listens there."""


def base_from(environment: Mapping[str, str]) -> int:
    """The base that `environment` asks for; raises TestbedError when it is no usable port number."""
    text = environment.get(BASE_VARIABLE, str(DEFAULT_BASE))
    if not text.isascii() or not text.isdigit() or not 1024 <= int(text) <= 65535 - SPAN:
        raise TestbedError(
            f"{BASE_VARIABLE} is {text!r}, no number from 1024 to {65535 - SPAN}. Unset it to use {DEFAULT_BASE}."
        )
    return int(text)
