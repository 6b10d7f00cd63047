"""From a pod's spec to ``#SBATCH`` lines, case by case; ``tests/e2e/test_jobcases.py`` asks a real slurmctld about each."""

import shlex

import pytest

from .jobcases import CASES, Case


def options(script: str) -> list[str]:
    """The arguments that sbatch reads, without the quotes, which here are as a shell's."""
    return [word for line in script.splitlines() if line.startswith("#SBATCH ") for word in shlex.split(line[8:])]


def test_there_are_enough_cases_each_of_its_own_name() -> None:
    assert len(CASES) >= 80
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_pod_becomes_these_lines(case: Case) -> None:
    words = options(case.script(1))
    assert [line for line in case.lines if line not in words] == [], words
    assert not [word for word in words if word.partition("=")[0] in case.absent], words
    assert not [
        name
        for name in {w.partition("=")[0] for w in words}
        if sum(w.partition("=")[0] == name for w in words) > 1 and name != "--open-mode"
    ]
