"""systemd's files for the sidecar: systemd reads them without a complaint, and they say what the documentation says."""

import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"
UNIT = "slurmlet-sidecar.service"
DROP_INS = f"{UNIT}.d"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd on this machine")
@pytest.mark.parametrize("several", [False, True], ids=["one user", "several users"])
def test_systemd_has_nothing_to_complain_of(tmp_path: Path, several: bool) -> None:
    text = (PACKAGING / UNIT).read_text("utf-8")
    begun = "ExecStart=/opt/slurmlet/bin/slurmlet sidecar --config"
    assert begun in text
    # It looks for the program.
    (tmp_path / UNIT).write_text(text.replace("/opt/slurmlet/bin/slurmlet", "/bin/true"))
    if several:
        shutil.copytree(PACKAGING / DROP_INS, tmp_path / DROP_INS)
    argv = ["systemd-analyze", "verify", "--man=no", str(tmp_path / UNIT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if UNIT in line]
    assert (done.returncode, complaints) == (0, [])


def test_the_service_of_one_user_can_not_become_another_and_that_of_several_can_do_nothing_else() -> None:
    one = (PACKAGING / UNIT).read_text("utf-8").splitlines()
    several = (PACKAGING / DROP_INS / "users.conf").read_text("utf-8").splitlines()
    assert {"Type=notify", "NoNewPrivileges=yes", "CapabilityBoundingSet="} < set(one)
    sets = [line.partition("=")[2] for line in several if line.startswith("CapabilityBoundingSet=")]
    assert sets == ["", "CAP_SETUID CAP_SETGID CAP_KILL"]
