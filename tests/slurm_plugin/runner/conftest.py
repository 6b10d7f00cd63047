"""Fixtures of the runner's tests."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from slurm_plugin.runner import plan

from .jobs import Job

MakeJob = Callable[..., Job]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[MakeJob]:
    """Make job directories; whatever was started on them is ended."""
    made: list[Job] = []

    def make(what: plan.Plan, env: Mapping[str, Sequence[plan.EnvEntry]] | None = None) -> Job:
        made.append(Job(tmp_path / "pods" / f"job{len(made)}", what, env))
        return made[-1]

    yield make
    for each in made:
        each.close()
