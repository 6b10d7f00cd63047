"""Nobody can lead a walk astray, not even by changing the way while it is walked."""

import contextlib
import ctypes
import os
import threading
from pathlib import Path

from slurm_plugin.hostagent import files, removal


def exchange(one: Path, other: Path) -> None:
    """Let two names change places: the way is never gone, only different."""
    at_cwd, rename_exchange = -100, 2
    if ctypes.CDLL(None, use_errno=True).renameat2(at_cwd, bytes(one), at_cwd, bytes(other), rename_exchange) != 0:
        raise OSError(ctypes.get_errno(), "renameat2")


def test_a_directory_swapped_for_a_link_meanwhile_leads_nowhere(tmp_path: Path) -> None:
    base = tmp_path.resolve()
    outside, inside = base / "outside", base / "inside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    inside.mkdir()
    (base / "link").symlink_to(outside)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            exchange(inside, base / "link")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for n in range(600):
            with contextlib.suppress(OSError):
                files.write(f"{inside}/written", b"x", 0o600)
            with contextlib.suppress(OSError):
                files.stage(f"{inside}/staged-{n}", [["file", 1, 0o600]], b"x")
            with contextlib.suppress(OSError):
                removal.remove_tree(f"{inside}/precious")
            with contextlib.suppress(OSError):
                assert files.read(f"{inside}/precious", 0, 1) is None
    finally:
        over.set()
        swapper.join()
    assert os.listdir(outside) == ["precious"]


def test_the_modes_asked_for_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        files.write(f"{tmp_path.resolve()}/file", b"", 0o640)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
