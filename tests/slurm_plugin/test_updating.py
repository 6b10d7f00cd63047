"""Swapping a volume's content, on a real file system through a real host agent."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slurm_plugin.contract import PodContent, VolumeFile
from slurm_plugin.hosts.local import LocalHost
from slurm_plugin.jobdir import JobDir
from slurm_plugin.staging import content_version, job_directory
from slurm_plugin.translate import translate
from slurm_plugin.updating import update_volume

from .manifests import make_pod, make_site

OLD = (VolumeFile("a", b"1", 0o644), VolumeFile("gone", b"1", 0o644), VolumeFile("d/x", b"1", 0o644))
NEW = (VolumeFile("a", b"2", 0o600), VolumeFile("d/y", b"2", 0o644), VolumeFile("new", b"2", 0o644))


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[LocalHost]:
    host = LocalHost()
    plan = translate(make_pod(), make_site()).plan
    await host.stage(str(tmp_path / "job"), job_directory(plan, "", PodContent(volumes={"v": OLD})))
    yield host
    await host.close()


def content(path: Path) -> dict[str, str]:
    """What a container sees: names without dots."""
    tops = [name for name in os.listdir(path) if not name.startswith("..")]
    files = [file for top in tops for file in ([path / top] if (path / top).is_file() else (path / top).iterdir())]
    return {str(file.relative_to(path)): file.read_text() for file in files}


async def test_all_files_of_a_volume_change_together_and_what_is_gone_is_gone(host: LocalHost, tmp_path: Path) -> None:
    directory, volume = JobDir(str(tmp_path / "job")), tmp_path / "job" / "volumes" / "v"
    assert content(volume) == {"a": "1", "gone": "1", "d/x": "1"}
    await update_volume(host, directory, "v", NEW)
    assert content(volume) == {"a": "2", "d/y": "2", "new": "2"}
    assert (volume / "a").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(volume)) == sorted(["..data", content_version(NEW), "a", "d", "new"])
    assert os.readlink(volume / "..data") == content_version(NEW)


async def test_an_update_that_was_broken_off_is_made_good(host: LocalHost, tmp_path: Path) -> None:
    directory, volume = JobDir(str(tmp_path / "job")), tmp_path / "job" / "volumes" / "v"
    (volume / "..half").mkdir()  # staged by whoever died before the swap
    await update_volume(host, directory, "v", OLD)
    assert content(volume) == {"a": "1", "gone": "1", "d/x": "1"}
    assert not (volume / "..half").exists()
    before = os.stat(volume / "..data", follow_symlinks=False).st_ino
    await update_volume(host, directory, "v", OLD)
    assert os.stat(volume / "..data", follow_symlinks=False).st_ino == before, "what is so already is left alone"
