"""What the configuration says of the site reaches the objects that work there."""

from pathlib import Path

from slurm_plugin.clients.pyslurm.client import PyslurmClient
from slurm_plugin.config import SiteSettings, SSHHostSettings
from slurm_plugin.hosts.ssh import PYTHONS
from slurm_plugin.provider import SlurmProvider
from slurm_plugin.tenants import TenantProvider
from slurmlet import wiring


def test_the_login_node_is_tried_with_the_configured_interpreters_first(tmp_path: Path) -> None:
    host = {"kind": "ssh", "address": "login", "user": "alice", "known_hosts_file": str(tmp_path / "known_hosts")}
    slurm = {"host": host, "interpreters": ["/opt/python/bin/python3"]}

    made, _ = wiring._host(SiteSettings.model_validate({"slurm": slurm}), None)

    assert made._pythons == ("/opt/python/bin/python3", *PYTHONS)  # type: ignore[attr-defined]


def test_what_a_machine_on_the_way_does_not_say_is_as_for_the_login_node() -> None:
    jumps = [{"address": "outer"}, {"address": "inner", "port": 2222, "user": "gate", "key_file": "/inner"}]
    host = {"kind": "ssh", "address": "login", "user": "alice", "known_hosts_file": "/known", "key_file": "/key"}
    ssh = SSHHostSettings.model_validate(host | {"certificate_file": "/key.cert", "proxy_jump": jumps})

    outer, inner = (wiring._jump(jump, ssh, "bob") for jump in ssh.proxy_jump)

    assert (outer.name, outer.key_files, outer.certificate_file) == ("bob@outer", ("/key",), "/key.cert")
    assert (inner.name, inner.key_files, inner.certificate_file) == ("gate@inner:2222", ("/inner",), None)
    assert outer.known_hosts_files == inner.known_hosts_files == ("/known",)


def test_each_slurm_user_has_a_key_of_its_own_on_every_machine() -> None:
    keys = {"key_file": "/keys/{user}", "certificate_file": "/certificates/{user}.pub"}
    jumps = [{"address": "outer"}, {"address": "inner", "key_file": "/gate/{user}"}]
    ssh = SSHHostSettings.model_validate(
        {"kind": "ssh", "address": "login", "user": "alice", "known_hosts_file": "/known", **keys, "proxy_jump": jumps}
    )

    outer, inner = (wiring._jump(jump, ssh, "bob") for jump in ssh.proxy_jump)

    assert ssh.key_for("bob") == ("/keys/bob", "/certificates/bob.pub")
    assert (outer.key_files, outer.certificate_file) == (("/keys/bob",), "/certificates/bob.pub")
    assert (inner.key_files, inner.certificate_file) == (("/gate/bob",), None)


def test_whoever_the_policy_names_has_pods_of_their_own_and_the_hosts_own_user_has_all() -> None:
    """One named user too: the policy may have named another one when a pod was submitted."""
    slurm = {"host": {"kind": "local", "prefix": ["sudo", "-n", "-u", "{user}"]}}
    sites = wiring.Sites(kubernetes="test", shared=False)

    one = sites.provider(SiteSettings.model_validate({"slurm": slurm, "policy": [{"user": "alice"}]}), node="n")
    own = sites.provider(SiteSettings.model_validate({"slurm": {"host": {"kind": "local"}}}), node="n")

    assert isinstance(one, TenantProvider)
    assert isinstance(own, SlurmProvider)


def test_slurms_library_is_asked_where_the_configuration_says_so() -> None:
    slurm = {"host": {"kind": "local"}, "client": {"kind": "pyslurm"}}
    settings = SiteSettings.model_validate({"slurm": slurm})
    host, user = wiring._host(settings, None)

    assert isinstance(wiring._client(settings, host, user), PyslurmClient)
