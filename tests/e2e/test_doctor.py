"""`slurmlet doctor` says what is well, and of what is not what to mend."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from slurmlet.demo import agent_configuration
from testbed.paths import Layout

from .agents import service
from .sidecars import Sidecar
from .tenants import BECOME, USERS
from .testbed import PROJECT_ROOT, Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X"


@pytest.fixture
def configuration(testbed: Testbed, tmp_path: Path) -> dict[str, Any]:
    return agent_configuration(testbed.environment, node="e2e-doctor", port=1, directory=tmp_path)


def examine(
    configuration: dict[str, Any], directory: Path, python: tuple[str, ...] = (sys.executable,)
) -> tuple[int, str]:
    path = directory / "slurmlet.yaml"
    path.write_text(yaml.safe_dump(configuration))
    words = ("-m", "slurmlet", "doctor", "--config", str(path))
    done = subprocess.run((*python, *words), cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=200, check=False)
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


def test_an_interlink_plugin_is_tried(testbed: Testbed, configuration: dict[str, Any], tmp_path: Path) -> None:
    plugin = Sidecar(testbed, "e2e-doctor-plugin", serves="interlink", slurm={})
    plugin.start()
    try:
        del configuration["slurm"]
        configuration["interlink"] = {
            "url": f"unix://{plugin.socket}", "directory": str(tmp_path), "token_file": str(plugin.tokens),
        }  # fmt: skip
        wait_until("the plugin to know Slurm", lambda: examine(configuration, tmp_path)[0] == 0)
        old = tmp_path / "old-token"
        old.write_text("which it believed once\n")
        configuration["interlink"]["token_file"] = str(old)
        status, said = examine(configuration, tmp_path)
        assert status == 1
        assert f"does not believe our token ({old})" in failing(said)[0]
    finally:
        plugin.kill()


def test_a_sidecars_own_file_is_examined_on_the_login_node(testbed: Testbed) -> None:
    place = Layout.from_environment().share / "doctor"
    place.mkdir(exist_ok=True)
    serve = {"unix_socket": str(place / "sidecar.sock"), "token_file": str(place / "tokens")}
    (place / "tokens").write_text("of-this-test\n")
    policy = [{"namespaces": [user], "user": user, "partitions": ["cpu"]} for user in USERS]
    slurm = {"host": {"kind": "local", "prefix": BECOME}, "root": "{home}/.slurmlet/e2e-doctor"}
    sidecar: dict[str, Any] = {"serve": serve, "slurm": slurm, "policy": policy}
    python = testbed.inside(*service("root"))
    status, said = examine(sidecar, place, python)
    assert (status, failing(said)) == (0, [])
    for what in (
        "serve.token_file",
        *(f"node slurm, user {user}, {part}" for user in USERS for part in ("sbatch", "slurm.root")),
    ):
        assert what in said
    sidecar["serve"] |= {"token_file": str(place / "gone")}
    sidecar["policy"][1]["user"] = "nobody-here"
    status, said = examine(sidecar, place, python)
    assert status == 1
    tokens, user = failing(said)
    assert f"{place}/gone" in tokens
    assert "user nobody-here" in user
