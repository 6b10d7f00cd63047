"""What the host agent says of an error."""

import errno
import os

import pytest

from slurm_plugin.hostagent.server import error_header


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (
            errno.EDQUOT,
            "Disk quota exceeded (the Slurm user's quota there is used up: remove files, or have it raised)",
        ),
        (errno.ENOSPC, "No space left on device (make room there)"),
        (errno.EROFS, "Read-only file system (it is mounted for reading only there)"),
        (errno.EACCES, "Permission denied"),
    ],
)
def test_what_a_file_system_refuses_is_said_with_the_path_and_what_to_do(number: int, remedy: str) -> None:
    refused = OSError(number, os.strerror(number), "/scratch/alice/.slurmlet/slurm")
    assert error_header(refused)["message"] == f"/scratch/alice/.slurmlet/slurm: {remedy}"
