"""What `slurmlet render` prints, and how a mistake in a file is told."""

from pathlib import Path

import pytest

from slurm_plugin.errors import ConfigurationError
from slurmlet import config
from slurmlet.rendering import render_file

SITE = "slurm: {host: {kind: ssh, address: login, user: svc, known_hosts_file: /k}, root: '/scratch/{user}/{node}'}\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def pod(path: Path, **metadata: str) -> Path:
    text = "kind: Pod\nmetadata: {name: a, namespace: %s}\nspec: {containers: [{name: c, image: busybox}]}\n"
    return write(path, text % metadata.get("namespace", "default"))


def test_the_script_is_the_one_the_configured_node_would_submit(tmp_path: Path) -> None:
    settings = config.load(write(tmp_path / "site.yaml", SITE + "node: {name: hpc}\n"))
    script = render_file(pod(tmp_path / "pod.yaml"), settings, node=settings.node.name)
    assert '#SBATCH --chdir="/scratch/svc/hpc/pods/' in script
    assert '"source": "docker://docker.io/library/busybox:latest"' in script


def test_a_refused_pod_is_named_with_its_file_and_field(tmp_path: Path) -> None:
    settings = config.load(write(tmp_path / "site.yaml", SITE + "policy: [{namespaces: [x]}]\n"))
    with pytest.raises(ConfigurationError, match=r"pod\.yaml: pod default/a: metadata\.namespace: no policy rule"):
        render_file(pod(tmp_path / "pod.yaml"), settings, node="n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SITE + "policy: []\npolicy: []\n", "the key 'policy' is there twice"),
        (SITE + "noodes: {}\n", r"site\.yaml: noodes: unknown key"),
        (SITE.replace("/scratch", "scratch"), r"slurm\.root: must be an absolute path"),
        ("- a\n", "expected one YAML mapping"),
        ("a: [\n", "not YAML"),
    ],
)
def test_a_mistake_in_the_configuration_is_told_by_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config.load(write(tmp_path / "site.yaml", text))
