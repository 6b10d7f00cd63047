"""What an agent that died left half made in its root."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slurm_plugin.collection import Collection
from slurm_plugin.hosts.local import LocalHost


@pytest.fixture
async def host() -> AsyncIterator[LocalHost]:
    host = LocalHost()
    yield host
    await host.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a pod's directory and, old and young, what a killed agent leaves."""
    for name in (
        "pods/u-1/run",
        "pods/.slurmlet-stage-old/env",
        "pods/.slurmlet-stage-young",
        "bin",
        "pods/.slurmlet-x y\n",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin/.slurmlet-write-old").write_text("half")
    (tmp_path / "pods/u-1/.slurmlet-write-in-a-pod").write_text("half")
    (tmp_path / "pods/.slurmlet-link").symlink_to(tmp_path / "pods/u-1")
    then = time.time() - 7200
    for path in (*tmp_path.rglob("*"), tmp_path / "pods"):
        if "young" not in path.name:
            os.utime(path, (then, then), follow_symlinks=False)
    return tmp_path


async def test_what_is_old_goes_and_neither_what_is_young_nor_any_pods(host: LocalHost, root: Path) -> None:
    await Collection(host, hours=1).collect(str(root), now=0.0)
    left = {str(path.relative_to(root)) for path in root.rglob("*")}  # noqa: ASYNC240
    assert left == {
        "bin",
        "pods",
        "pods/u-1",
        "pods/u-1/run",
        "pods/u-1/.slurmlet-write-in-a-pod",
        "pods/.slurmlet-stage-young",
    }


async def test_it_looks_at_once_and_then_once_an_hour(host: LocalHost, root: Path) -> None:
    collection, old = Collection(host, hours=1), root / "pods/.slurmlet-stage-again"
    await collection.collect(str(root), now=0.0)
    old.mkdir()
    os.utime(old, (0, 0))
    await collection.collect(str(root), now=3599.0)
    assert old.exists()
    await collection.collect(str(root), now=3600.0)
    assert not old.exists()


async def test_a_root_that_cannot_be_looked_at_is_a_warning(
    host: LocalHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await Collection(host, hours=1).collect(str(tmp_path / "missing"), now=0.0)
    assert "No such file" in caplog.text
