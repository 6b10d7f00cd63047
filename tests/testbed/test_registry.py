import json
from pathlib import Path

from testbed import registry
from testbed.paths import Layout
from testbed.registry import Registry


def test_registry_listens_on_its_loopback_port_only() -> None:
    assert json.loads(registry.configuration("127.0.0.1:30010"))["http"] == {"addr": "127.0.0.1:30010"}


def test_the_private_registry_lets_nobody_in_without_a_password() -> None:
    private = json.loads(registry.configuration("127.0.0.1:30012", htpasswd="/etc/x"))
    assert private["auth"] == {"htpasswd": {"realm": "testbed", "path": "/etc/x"}}
    assert "auth" not in json.loads(registry.configuration("127.0.0.1:30010"))


def test_environment_and_status_of_a_registry_that_does_not_run(tmp_path: Path) -> None:
    stopped = Registry(Layout(cache=tmp_path / "cache", state=tmp_path / "state", port_base=30000))
    assert stopped.environment() == {
        "SLURMLET_TESTBED_REGISTRY": "127.0.0.1:30010",
        "SLURMLET_TESTBED_PRIVATE_REGISTRY": "127.0.0.1:30012",
    }
    assert stopped.status() == [("registry", "not running"), ("private-registry", "not running")]
    stopped.stop()
