from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.site import pyslurm


def source(room: Path, *, version: str) -> Path:
    package = room / "pyslurm"
    package.mkdir()
    (package / "version.py").write_text(f'__version__ = "{version}"\n')
    (package / "__init__.py").write_text("from .version import __version__\nfrom pyslurm.deprecated import *\n")
    (package / "deprecated.pyx").touch()
    return room


def test_it_says_the_sites_slurm_and_has_no_old_interface(tmp_path: Path) -> None:
    pyslurm.adapt(source(tmp_path, version="25.11.2"))
    assert (tmp_path / "pyslurm/version.py").read_text() == '__version__ = "26.5.0"\n'
    assert "deprecated" not in (tmp_path / "pyslurm/__init__.py").read_text()
    assert not (tmp_path / "pyslurm/deprecated.pyx").exists()


def test_another_release_is_not_passed_off_as_this_one(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"version\.py"):
        pyslurm.adapt(source(tmp_path, version="25.11.3"))
