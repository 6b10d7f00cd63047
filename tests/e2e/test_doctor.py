"""`slurmlet doctor` says what is well, and of what is not what to mend."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from slurmlet.demo import agent_configuration

from .testbed import PROJECT_ROOT, Testbed

pytestmark = pytest.mark.e2e

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X"


@pytest.fixture
def configuration(testbed: Testbed, tmp_path: Path) -> dict[str, Any]:
    return agent_configuration(testbed.environment, node="e2e-doctor", port=1, directory=tmp_path)


def examine(configuration: dict[str, Any], directory: Path) -> tuple[int, str]:
    path = directory / "slurmlet.yaml"
    path.write_text(yaml.safe_dump(configuration))
    words = ("-m", "slurmlet", "doctor", "--config", str(path))
    done = subprocess.run(
        (sys.executable, *words), cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=200, check=False
    )
    assert not done.stderr
    return done.returncode, done.stdout


def failing(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith("ok ")]


def test_a_good_configuration_has_nothing_to_mend(configuration: dict[str, Any], tmp_path: Path) -> None:
    status, said = examine(configuration, tmp_path)
    assert (status, failing(said)) == (0, [])
    for what in ("API server", "sbatch", "Python", "slurm.root", "of 6 nodes"):  # others may drain some
        assert what in said


def test_what_is_missing_is_named(testbed: Testbed, configuration: dict[str, Any], tmp_path: Path) -> None:
    url = testbed.environment["SLURMLET_TESTBED_SLURMRESTD"]
    configuration["slurm"] |= {
        "root": "/proc/{node}",
        "client": {"kind": "rest", "url": url, "token_file": str(tmp_path / "token")},
    }
    status, said = examine(configuration, tmp_path)
    assert status == 1
    root, token = failing(said)
    assert "slurm.root: /proc/" in root
    assert f"token {tmp_path}/token: No such file" in token


def test_a_changed_host_key_is_named(configuration: dict[str, Any], tmp_path: Path) -> None:
    host = configuration["slurm"]["host"]
    known = tmp_path / "known_hosts"
    known.write_text(f"[{host['address']}]:{host['port']} {OTHER_KEY}\n")
    host["known_hosts_file"] = str(known)
    status, said = examine(configuration, tmp_path)
    assert status == 1
    (line,) = failing(said)
    assert "the host key of" in line
    assert str(known) in line


def test_a_partition_that_is_not_there_is_named(configuration: dict[str, Any], tmp_path: Path) -> None:
    configuration["policy"] = [{"partitions": ["cpu", "gone"]}]
    status, said = examine(configuration, tmp_path)
    assert status == 1
    assert "Slurm has no gone" in failing(said)[0]


def test_a_sidecar_that_is_away_is_named(configuration: dict[str, Any], tmp_path: Path) -> None:
    del configuration["slurm"]
    configuration["sidecar"] = {"url": "https://127.0.0.1:9"}
    status, said = examine(configuration, tmp_path)
    assert status == 1
    assert "the sidecar at https://127.0.0.1:9" in failing(said)[0]
