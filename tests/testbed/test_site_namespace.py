import os
from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.paths import Layout
from testbed.site.namespace import Namespace, parse_ids, replaced, sees

PASSWD = "root:x:0:0:root:/root:/bin/bash\nalice:x:2001:2002::/home/alice:/bin/bash\n"


def test_ids_are_those_of_the_sites_own_passwd() -> None:
    assert parse_ids(PASSWD, "alice") == (2001, 2002)


def test_unknown_user_is_named() -> None:
    with pytest.raises(TestbedError, match="mallory"):
        parse_ids(PASSWD, "mallory")


def test_process_of_the_site_is_known_by_its_mounts() -> None:
    mountinfo = "65 42 0:39 / / rw - overlay x rw,lowerdir=/c,upperdir=/srv/t/site/upper,workdir=/w\n"
    assert sees(mountinfo, Path("/srv/t/site"))
    assert not sees(mountinfo, Path("/srv/t/sit"))


def test_blanks_are_written_as_the_kernel_writes_them() -> None:
    assert sees("65 42 0:39 /my\\040place/site/home /home rw - ext4 /dev/vda rw\n", Path("/my place/site"))


def test_a_project_that_was_removed_and_made_anew_is_another_one(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "project", tmp_path / "of-another-clone"
    project.mkdir()
    seen = Path(f"/proc/self/fd/{os.open(project, os.O_PATH)}")  # as a mount sees it
    assert not replaced(seen, project)
    assert not replaced(elsewhere, project)
    project.rmdir()
    project.mkdir()
    assert replaced(seen, project)
    os.close(int(seen.name))


def test_site_that_is_not_up_says_how_to_start_it(tmp_path: Path) -> None:
    namespace = Namespace(Layout(cache=tmp_path, state=tmp_path / "state", port_base=30000))
    assert namespace.pid is None
    with pytest.raises(TestbedError, match="testbed up"):
        namespace.enter(["true"])
