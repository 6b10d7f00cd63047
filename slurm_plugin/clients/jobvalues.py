"""Values of sbatch's options, in the units that Slurm's job description has; for whoever submits without sbatch. Pure.

The readers of values raise ValueError for one that sbatch would refuse.
"""

import re
from collections.abc import Callable, Mapping
from signal import Signals
from typing import Any, NamedTuple

from ..errors import SubmissionRejectedError

_MIB = re.compile(r"([0-9]+)([KMGT]?)B?", re.ASCII | re.IGNORECASE)
_KIB = {"K": 1, "M": 1024, "G": 1024**2, "T": 1024**3}
_DURATION = re.compile(r"(?:(?P<days>[0-9]+)-)?(?P<numbers>[0-9]+(?::[0-9]{1,2}){0,2})", re.ASCII)
_WARNING = re.compile(r"(?P<batch>B:)?(?P<name>[A-Z0-9]+)(?:@(?P<seconds>[0-9]+))?", re.ASCII)
# What sbatch --export=NONE does: the job's shell gets the environment that its user has on the compute node.
_ENVIRONMENT = {"SLURM_GET_USER_ENV": "1", "PATH": "/usr/local/bin:/usr/bin:/bin"}
# The variables that sbatch itself puts into a job's environment; srun in the job goes by them.
_SAID = {
    "cpus-per-task": ("SLURM_CPUS_PER_TASK",),
    "ntasks": ("SLURM_NTASKS", "SLURM_NPROCS"),
    "ntasks-per-node": ("SLURM_NTASKS_PER_NODE",),
}

UNNAMED = "sbatch"
"""The name of a job that has none: slurmctld takes one without for one of every name where a dependency is ``singleton``."""


class Notice(NamedTuple):
    """``--signal``: which, how long before the time limit (None: Slurm's own 60 s), and whether to the batch script alone."""

    name: str
    seconds: int | None
    batch: bool


Fields = dict[str, Any]


def described(options: Mapping[str, str], field: Callable[[str, str], Fields | None], *, taker: str) -> Fields:
    """Return the fields of a job with these options. Nothing is silently dropped.

    ``field`` returns an option's own: {} if it is to be left out, None if there is none. ``chdir`` has none: the caller's
    word counts, as that of sbatch's command line does. Raises SubmissionRejectedError in the name of ``taker`` for an
    option without a field, or whose value ``field`` refuses by ValueError.
    """
    found: Fields = {"name": UNNAMED}
    for name, value in options.items():
        if name == "chdir":
            continue
        try:
            fields = field(name, value)
        except ValueError as error:
            raise SubmissionRejectedError(f"{taker} can't be given --{name}={value}: {error}") from error
        if fields is None:
            raise SubmissionRejectedError(f"{taker} has no field for sbatch's option --{name}")
        found |= fields
    return found


def mib(text: str) -> int:
    """Read a size, in MiB where it has no unit."""
    match = _MIB.fullmatch(text)
    if match is None:
        raise ValueError("not a size")
    kib = int(match[1]) * _KIB[match[2].upper() or "M"]
    return -(-kib // 1024)


def minutes(text: str) -> int:
    """Read sbatch's forms of a time: minutes, minutes:seconds, hours:minutes:seconds, and the same after days."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("not a time")
    numbers = [int(number) for number in match["numbers"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = [*numbers, 0, 0][:3]
        return int(match["days"]) * 1440 + hours * 60 + minutes + (seconds > 0)
    hours, minutes, seconds = {1: [0, *numbers, 0], 2: [0, *numbers], 3: numbers}[len(numbers)]
    return hours * 60 + minutes + (seconds > 0)


def warning(text: str) -> Notice:
    """Read ``B:USR1@690``."""
    match = _WARNING.fullmatch(text)
    if match is None or not (match["name"].isdigit() or f"SIG{match['name']}" in Signals.__members__):
        raise ValueError("not a signal")
    return Notice(match["name"], None if match["seconds"] is None else int(match["seconds"]), bool(match["batch"]))


def environment(options: Mapping[str, str], directory: str) -> dict[str, str]:
    """Return the environment of a job with these options, submitted as by ``sbatch --export=NONE``."""
    said = {name: options[option] for option, names in _SAID.items() if option in options for name in names}
    return _ENVIRONMENT | said | {"SLURM_SUBMIT_DIR": directory}
