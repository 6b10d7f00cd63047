"""Kubeconfigs carry everything in themselves, for one reader only."""

import base64
import os
import stat
from pathlib import Path

import yaml

from testbed.kubernetes.kubeconfig import Cluster, render_kubeconfig, write_kubeconfig
from testbed.kubernetes.pki import Authority


def test_a_token_kubeconfig_needs_no_other_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    authority.ensure()

    text = render_kubeconfig(
        Cluster("https://127.0.0.1:1", authority.pair.certificate), "slurmlet", "secret", namespace="slurmlet"
    )

    config = yaml.safe_load(text)
    assert config["users"] == [{"name": "slurmlet", "user": {"token": "secret"}}]
    assert config["contexts"][0]["context"]["namespace"] == "slurmlet"
    carried = config["clusters"][0]["cluster"]["certificate-authority-data"]
    assert base64.b64decode(carried) == authority.pair.certificate.read_bytes()


def test_a_written_kubeconfig_is_its_readers_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "kubeconfig"
    write_kubeconfig(path, "old", uid=os.getuid(), gid=os.getgid())

    write_kubeconfig(path, "new", uid=os.getuid(), gid=os.getgid())

    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
