"""End-to-end tests share one real testbed: the one that is up, or one brought up for them and taken down after."""

import os
import re
from collections.abc import Iterator

import pytest

from .agents import Agent, running
from .pods import Pods, make_pods
from .testbed import Testbed, exported, run_testbed
from .waits import agent_away, present, requeued, slurm_away, storm, timed

__all__ = ["agent_away", "present", "requeued", "slurm_away", "storm", "timed"]


# A kubectl that ends at once need not tidy up before: a sixth of its CPU time. One that carries much does, from there on.
UNCOLLECTED = {"GOGC": "off", "GOMEMLIMIT": "256MiB"}


@pytest.fixture(scope="session")
def testbed() -> Iterator[Testbed]:
    """The testbed, up; left as it was found."""
    was_up = re.search(r"^ +\S+ +running", run_testbed("status", check=False).stdout, re.MULTILINE)
    run_testbed("up", quiet=False)
    yield Testbed({**os.environ, **exported(run_testbed("env").stdout), **UNCOLLECTED})
    if not was_up and "PYTEST_XDIST_WORKER" not in os.environ:  # another worker may still need it
        run_testbed("down", quiet=False)


@pytest.fixture(scope="session")
def ssh_agent(testbed: Testbed) -> Iterator[Agent]:
    """An agent that reaches Slurm over SSH, with the ServiceAccount of examples/rbac.yaml."""
    yield from running(Agent(testbed, "ssh", index=1))


@pytest.fixture(scope="session")
def local_agent(testbed: Testbed) -> Iterator[Agent]:
    """An agent on the login node itself, with the node's own identity."""
    yield from running(Agent(testbed, "local", index=2, identity="node"))


@pytest.fixture(scope="session", params=["ssh", "local"])
def agent(request: pytest.FixtureRequest) -> Agent:
    """Each of the two agents; both live as long as the tests do."""
    agent: Agent = request.getfixturevalue(f"{request.param}_agent")
    return agent


@pytest.fixture
def pods(testbed: Testbed, agent: Agent) -> Iterator[Pods]:
    """A namespace of its own for one test's pods."""
    yield from make_pods(testbed, agent)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Look at what takes minutes after everything else, and disturb the others before that."""
    items.sort(key=lambda item: [item.get_closest_marker(name) is not None for name in ("last", "alone")])


@pytest.fixture(scope="session", autouse=True)
def long_waits(request: pytest.FixtureRequest) -> None:
    """Begin at once what the tests marked ``last`` will look at, if they were chosen."""
    for item in request.session.items:
        if item.get_closest_marker("last") is not None:
            for name in ("requeued", "timed", "slurm_away", "agent_away", "storm"):
                if name in getattr(item, "fixturenames", ()):
                    request.getfixturevalue(name)
