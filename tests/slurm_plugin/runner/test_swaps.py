import os
from pathlib import Path

import pytest

from slurm_plugin.runner.swaps import _stat_below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "run" / "data").mkdir(parents=True)
    (root / "var").mkdir()
    return root


@pytest.mark.parametrize(
    ("link", "target", "path"),
    [
        ("var/run", "/run", "/var/run/data"),
        ("var/run", "../run", "/var/run/data"),
        ("var/run", "../../../../run", "/var/run/data"),
        ("var/data", "run/../../run/data", "/var/../run/./data/"),
        ("data", "/run/data", "/data"),
    ],
)
def test_links_of_a_container_lead_where_they_lead_inside(root: Path, link: str, target: str, path: str) -> None:
    (root / link).symlink_to(target)
    found = _stat_below(str(root), path)
    assert os.path.samestat(found, (root / "run" / "data").stat())


def test_a_link_to_itself_is_an_error_and_what_is_not_there_too(root: Path) -> None:
    (root / "loop").symlink_to("/loop")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("/loop", "/none/there"):
        with pytest.raises(OSError, match="loop|there|No such"):
            _stat_below(str(root), path)
    assert len(os.listdir("/proc/self/fd")) == before
