from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.paths import Layout
from testbed.site import cgroups

HIERARCHIES = ("cpuacct", "cpuset", "devices", "freezer", "memory")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return beside(tmp_path, "ours")


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """All hierarchies."""
    for name in HIERARCHIES:
        (tmp_path / "cgroup" / name).mkdir(parents=True)
        (tmp_path / "cgroup" / name / "tasks").touch()
    return tmp_path / "cgroup"


def beside(tmp_path: Path, name: str) -> Layout:
    (tmp_path / name).mkdir()
    return Layout(cache=tmp_path / "cache", state=tmp_path / name, port_base=30000)


def test_what_slurm_has_made_is_removed_and_nothing_else(layout: Layout, mounted: Path) -> None:
    cgroups.claim(layout, wanted=True, made=False, mounted=mounted)
    cgroups.claim(layout, wanted=True, made=True, mounted=mounted)
    memory = mounted / "memory"
    (memory / "slurm_cn1" / "uid_2001" / "job_1").mkdir(parents=True)
    (memory / "slurm_elsewhere").mkdir()
    cgroups.release(layout, mounted)
    assert {path.name for path in memory.iterdir()} == {"tasks", "slurm_elsewhere"}
    cgroups.release(layout, mounted)


def test_a_site_stays_of_its_kind_until_it_is_down(layout: Layout, mounted: Path) -> None:
    cgroups.claim(layout, wanted=False, made=True, mounted=mounted)
    with pytest.raises(TestbedError, match="without cgroups"):
        cgroups.claim(layout, wanted=True, made=True, mounted=mounted)
    cgroups.claim(layout, wanted=True, made=False, mounted=mounted)
    with pytest.raises(TestbedError, match="with cgroups"):
        cgroups.claim(layout, wanted=False, made=True, mounted=mounted)


def test_one_testbed_at_a_time_has_cgroups(layout: Layout, mounted: Path, tmp_path: Path) -> None:
    cgroups.claim(layout, wanted=True, made=False, mounted=mounted)
    other = beside(tmp_path, "other")
    with pytest.raises(TestbedError, match="ours has them"):
        cgroups.claim(other, wanted=True, made=False, mounted=mounted)
    cgroups.release(other, mounted)
    cgroups.claim(other, wanted=False, made=False, mounted=mounted)
    cgroups.release(layout, mounted)
    cgroups.claim(other, wanted=True, made=False, mounted=mounted)


def test_a_testbed_whose_directory_is_gone_holds_them_no_more(layout: Layout, mounted: Path, tmp_path: Path) -> None:
    cgroups.claim(layout, wanted=True, made=False, mounted=mounted)
    layout.state.rmdir()
    cgroups.claim(beside(tmp_path, "other"), wanted=True, made=False, mounted=mounted)


def test_a_machine_without_the_hierarchies_is_told_which(layout: Layout, mounted: Path) -> None:
    (mounted / "memory" / "tasks").unlink()
    with pytest.raises(TestbedError, match="no hierarchies of cgroup v1 .* for memory"):
        cgroups.claim(layout, wanted=True, made=False, mounted=mounted)
