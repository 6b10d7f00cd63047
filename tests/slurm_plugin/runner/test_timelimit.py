"""What is left of a pod's time once Slurm has warned it."""

import pytest

from slurm_plugin.runner.timelimit import LONGEST_SECONDS, seconds_left


@pytest.mark.parametrize(
    ("end", "grace", "left"),
    [
        ("1060", 30, 25),  # a limit of a minute, warned at its start
        ("1150", 30, LONGEST_SECONDS),  # warned a minute early
        ("1120", 30, LONGEST_SECONDS),
        ("1030", 30, 0),
        ("900", 30, 0),  # the limit was extended since; Slurm's warning is the truth
        ("", 30, 0),
        ("soon", 30, 0),
    ],
)
def test_the_pod_runs_on_until_its_grace_period_is_just_left(end: str, grace: float, left: float) -> None:
    assert seconds_left({"SLURM_JOB_END_TIME": end} if end else {}, 1000.0, grace) == left
