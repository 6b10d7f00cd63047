"""What containers leave in a run's scratch space is removed, whatever they made of it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from slurm_plugin.runner.volumes import remove_tree

_NOBODY = 65534


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory of an ordinary user, who these tests are meanwhile: modes mean nothing to root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(_NOBODY)
    try:
        yield Path(tempfile.mkdtemp(prefix="slurmlet-test-")).resolve()
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o300, 0o500])
def test_directories_that_nobody_may_read_or_write_are_removed(scratch: Path, mode: int) -> None:
    inner = scratch / "outer" / "closed" / "inner"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (inner.parent / "file").touch()
    for directory in (inner, inner.parent):
        directory.chmod(mode)
    remove_tree(str(scratch))
    assert not scratch.exists()


def test_a_tree_of_any_depth_is_removed(scratch: Path) -> None:
    top = scratch / "top"
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=at)
        inner = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(at)
    remove_tree(str(scratch))
    assert not scratch.exists()


def test_links_lead_to_the_tree_and_never_out_of_it(scratch: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("node/run/files", "kept"):
        (scratch / name).mkdir(parents=True)
    (scratch / "tmp").symlink_to("node")
    (scratch / "node" / "run" / "out").symlink_to(scratch / "kept")
    (scratch / "kept" / "file").touch()
    remove_tree(f"{scratch}/tmp/run")
    assert sorted(str(path.relative_to(scratch)) for path in scratch.rglob("*")) == ["kept", "kept/file", "node", "tmp"]
    remove_tree(str(scratch))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of two users")
def test_what_can_not_be_removed_is_named_and_keeps_nothing_else(
    scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "m/others", "z"):
        (scratch / name).mkdir(parents=True)
    os.seteuid(0)
    (scratch / "m" / "others").chmod(0o755)
    os.chown(scratch / "m" / "others", 0, 0)
    (scratch / "m" / "others" / "file").touch()
    os.seteuid(_NOBODY)
    remove_tree(str(scratch))
    assert "left behind" in capfd.readouterr().err
    left = [path.name for path in scratch.rglob("*") if path.is_file()]
    assert left == ["file"], left
    assert not {"a", "z"} & {path.name for path in scratch.rglob("*")}
    os.seteuid(0)
    remove_tree(str(scratch))
    os.seteuid(_NOBODY)
