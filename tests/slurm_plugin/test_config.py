from typing import Any

import pytest
from pydantic import ValidationError

from slurm_plugin.config import SiteSettings, SlurmSettings

LOCAL = {"kind": "local"}
SSH = {"kind": "ssh", "address": "login", "user": "alice", "known_hosts_file": "/etc/ssh/known"}


def settings(**slurm: Any) -> SlurmSettings:
    return SlurmSettings.model_validate({"host": LOCAL, **slurm})


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"slurm": {}}, "slurm.host"),
        ({"slurm": {"host": {"kind": "carrier pigeon"}}}, "slurm.host"),
        ({"slurm": {"host": {"kind": "ssh"}}}, "slurm.host.ssh.address"),
        ({"slurm": {"host": SSH | {"port": 0}}}, "slurm.host.ssh.port"),
        ({"slurm": {"host": SSH | {"user": "-oProxyCommand=x"}}}, "slurm.host.ssh.user"),
        ({"slurm": {"host": SSH | {"key_file": "id_rsa"}}}, "slurm.host.ssh.key_file"),
        ({"slurm": {"host": SSH | {"certificate_file": "/c"}}}, "slurm.host.ssh"),
        ({"slurm": {"host": SSH | {"proxy_jump": [{"port": 22}]}}}, "slurm.host.ssh.proxy_jump.0.address"),
        ({"slurm": {"host": LOCAL, "pol_seconds": 1}}, "slurm.pol_seconds"),
        ({"slurm": {"host": LOCAL, "poll_seconds": 0}}, "slurm.poll_seconds"),
        ({"slurm": {"host": LOCAL, "sbatch_timeout_seconds": 5}}, "slurm.sbatch_timeout_seconds"),
        ({"slurm": {"host": LOCAL, "interpreters": []}}, "slurm.interpreters"),
        ({"slurm": {"host": LOCAL, "interpreters": ["python3"]}}, "slurm.interpreters.0"),
        ({"slurm": {"host": LOCAL, "interpreters": ["/a\nb"]}}, "slurm.interpreters.0"),
        ({"slurm": {"host": LOCAL}, "pods": {"runtime": {"kind": "docker"}}}, "pods.runtime.kind"),
        ({"slurm": {"host": LOCAL}, "pods": {"resources": {"a/b": {"gres": "-x"}}}}, "pods.resources.a/b.gres"),
        ({"slurm": {"host": LOCAL}, "policy": [{}, {"max_cpus": 0}]}, "policy.1.max_cpus"),
        ({"slurm": {"host": LOCAL}, "policy": []}, "policy"),
        ({"slurm": {"host": LOCAL}, "polices": []}, "polices"),
    ],
)
def test_an_unknown_key_or_a_bad_value_names_its_path(config: Any, path: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SiteSettings.model_validate(config)
    assert [".".join(map(str, error["loc"])) for error in caught.value.errors()][:1] == [path]


@pytest.mark.parametrize(
    "root",
    [
        "relative",
        "~/x",
        "{user}/x",
        "/x/{home",
        "/x/{}",
        "/x/{0}",
        "/x/{user.name}",
        "/x/{user!r}",
        "/x/{other}",
        "/x\n",
        "",
    ],
)
def test_a_root_that_is_no_path_or_template_is_refused(root: str) -> None:
    with pytest.raises(ValidationError, match="root"):
        settings(root=root)


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("{home}/.slurmlet/{node}", "/home/a/.slurmlet/hpc"),
        ("/scratch/{user}/pods/", "/scratch/a{node}/pods"),
        ("/scratch", "/scratch"),
    ],
)
def test_a_root_is_one_users_on_one_node(root: str, path: str) -> None:
    assert settings(root=root).root_for(user="a{node}", home="/home/a", node="hpc").path == path


def test_images_are_in_the_root_or_where_several_nodes_share_them() -> None:
    names = {"user": "alice", "home": "/home/alice", "node": "hpc"}
    assert settings().root_for(**names).images == "/home/alice/.slurmlet/hpc/images"
    shared = settings(images="/scratch/{user}/images/").root_for(**names)
    assert (shared.images, shared.pods) == ("/scratch/alice/images", "/home/alice/.slurmlet/hpc/pods")


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        settings().poll_seconds = 1  # type: ignore[misc]
