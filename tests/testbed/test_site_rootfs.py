import pytest

from testbed.errors import TestbedError
from testbed.site import rootfs


def test_every_slurm_version_has_a_tree_of_its_own() -> None:
    keys = {rootfs.key(release) for release in rootfs.RELEASES.values()}
    assert len(keys) == 3
    assert rootfs.key(rootfs.release("24.11")).startswith("24.11-")


def test_unknown_slurm_version_names_those_there_are() -> None:
    with pytest.raises(TestbedError, match=r"23\.02.*22\.05, 24\.11, 26\.05"):
        rootfs.release("23.02")


def test_site_python_gets_the_projects_own_dependencies() -> None:
    assert any(requirement.startswith("paramiko") for requirement in rootfs.requirements())


def test_only_apptainer_comes_from_sid() -> None:
    assert rootfs.preferences(rootfs.release("24.11")).split("\n\n") == [
        "Package: *\nPin: release n=sid\nPin-Priority: -1",
        "Package: apptainer\nPin: release n=sid\nPin-Priority: 990\n",
    ]


def test_suite_that_has_everything_needs_no_preferences() -> None:
    assert rootfs.preferences(rootfs.release("26.05")) == ""
