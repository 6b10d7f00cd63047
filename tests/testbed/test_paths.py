"""The testbed's directories and ports follow its three environment variables."""

from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.paths import Layout
from testbed.ports import DEFAULT_BASE, SPAN, Port


def test_defaults_are_the_users_cache_and_a_short_state_directory() -> None:
    layout = Layout.from_environment({"XDG_CACHE_HOME": "/cache"})

    assert layout.cache == Path("/cache/slurmlet")
    assert layout.state == Path("/var/tmp/slurmlet-testbed")
    assert layout.port_base == DEFAULT_BASE


def test_the_lock_is_not_in_the_directory_that_down_removes() -> None:
    layout = Layout.from_environment({"SLURMLET_TESTBED": "/run/bed", "XDG_CACHE_HOME": "/cache"})

    assert layout.lock == Path("/cache/slurmlet/locks/run-bed.lock")


@pytest.mark.parametrize("state", ["relative", "/" + "x" * 60])
def test_a_state_directory_no_socket_fits_below_is_refused(state: str) -> None:
    with pytest.raises(TestbedError, match="SLURMLET_TESTBED is"):
        Layout.from_environment({"SLURMLET_TESTBED": state})


@pytest.mark.parametrize("base", ["", "eighty", "80", "65500", "-1", "²"])
def test_a_port_base_that_leaves_no_room_is_refused(base: str) -> None:
    with pytest.raises(TestbedError, match="SLURMLET_TESTBED_PORT_BASE is"):
        Layout.from_environment({"SLURMLET_TESTBED_PORT_BASE": base})


def test_moving_the_base_moves_every_port() -> None:
    layout = Layout.from_environment({"SLURMLET_TESTBED_PORT_BASE": "30000"})

    assert layout.endpoint(Port.API_SERVER) == "127.0.0.1:30000"
    assert layout.port(Port.SLURMD, 3) == 30000 + Port.SLURMD + 3
    assert max(Port) < SPAN
