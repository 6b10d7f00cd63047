"""What ``slurmlet doctor`` says of a pyslurm; its other looks at a site are tried on real parts (tests/e2e/test_doctor.py)."""

from collections.abc import Sequence

import pytest

from slurm_plugin.errors import HostError
from slurm_plugin.hosts.base import Completed
from slurmlet import sitecheck


class Machine:
    def __init__(self, exit_code: int, stdout: str = "", stderr: str = "") -> None:
        self._said = exit_code, stdout.encode(), stderr.encode()

    async def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float) -> Completed:
        return Completed(tuple(argv), *self._said)


async def test_a_pyslurm_is_named_with_its_python() -> None:
    assert await sitecheck._pyslurm(Machine(0, "25.11.2\n"), "/opt/python3") == "25.11.2 of /opt/python3"


async def test_a_python_without_one_is_what_is_to_be_mended() -> None:
    words = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'pyslurm'\n"
    with pytest.raises(HostError, match="/opt/python3 has no pyslurm that works: ModuleNotFoundError"):
        await sitecheck._pyslurm(Machine(1, stderr=words), "/opt/python3")
