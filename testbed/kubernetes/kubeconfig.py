"""Kubeconfig files that carry their credential and CA in themselves, so that a copy works wherever it is put."""

import base64
import os
from dataclasses import dataclass
from pathlib import Path

import yaml

from testbed.kubernetes.pki import Pair

Credential = Pair | str
"""A client certificate, or a bearer token."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the API server is and what it is verified with."""

    server: str
    certificate_authority: Path


def render_kubeconfig(cluster: Cluster, user: str, credential: Credential, *, namespace: str = "default") -> str:
    """The kubeconfig of `user`, as YAML (https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/)."""
    if isinstance(credential, str):
        identity = {"token": credential}
    else:
        identity = {
            "client-certificate-data": _base64(credential.certificate),
            "client-key-data": _base64(credential.key),
        }
    name = "slurmlet-testbed"
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {
                        "server": cluster.server,
                        "certificate-authority-data": _base64(cluster.certificate_authority),
                    },
                }
            ],
            "users": [{"name": user, "user": identity}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": namespace}}],
            "current-context": name,
        },
        sort_keys=False,
    )


def write_kubeconfig(path: Path, text: str, *, uid: int = 0, gid: int = 0) -> None:
    """Put `text` at `path`, readable by that user only; replaces what is there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        os.fchown(file.fileno(), uid, gid)
        file.write(text)
    partial.replace(path)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
