"""The demo's agent is the one that its configuration and the code describe, however often the demo is repeated."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurmlet import demo
from testbed import processes
from testbed.paths import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(cache=tmp_path / "cache", state=tmp_path / "state", port_base=21000)
    yield layout
    processes.stop(layout, demo.AGENT, grace_seconds=0)


def environment(**changes: str) -> dict[str, str]:
    names = ("NODE_KUBECONFIG", "SSH_HOST", "SSH_USER", "SSH_KEY", "SSH_KNOWN_HOSTS", "REGISTRY")
    return {
        **{f"SLURMLET_TESTBED_{name}": "of-the-test" for name in names},
        "SLURMLET_TESTBED_SSH_PORT": "21011",
        **changes,
    }


@pytest.fixture
def living(layout: Layout) -> int:
    """The pid of the agent that an earlier demo left, told from a new one by its pid alone."""
    demo.start_agent(layout, environment())
    processes.stop(layout, demo.AGENT, grace_seconds=0)  # a real one would not find its testbed
    return processes.start(layout, demo.AGENT, [sys.executable, "-c", "import time; time.sleep(60)"])


def test_an_agent_that_would_be_started_the_same_is_kept(layout: Layout, living: int) -> None:
    demo.start_agent(layout, environment())
    assert processes.pid(layout, demo.AGENT) == living


def test_an_agent_of_another_configuration_is_replaced(layout: Layout, living: int) -> None:
    demo.start_agent(layout, environment(SLURMLET_TESTBED_SSH_PORT="22011"))
    assert processes.pid(layout, demo.AGENT) != living


def test_an_agent_of_older_code_is_replaced(layout: Layout, living: int) -> None:
    (layout.state / "agent" / "started-from").write_text("older code")
    demo.start_agent(layout, environment())
    assert processes.pid(layout, demo.AGENT) != living
