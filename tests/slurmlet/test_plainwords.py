"""Every mistake in a configuration file is said with its place as in the file, and what is allowed there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from slurm_plugin.errors import ConfigurationError
from slurmlet.config import Configuration, SidecarConfiguration, load
from slurmlet.plainwords import PATTERNS

SSH = "{kind: ssh, address: login, user: alice, known_hosts_file: /known}"
LOCAL = "slurm: {host: {kind: local}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("node: {name: x}", "slurm: is missing, and is required"),
        ("slurm: {}", "slurm.host: is missing, and is required"),
        ("slurm: {host: ssh}", "slurm.host: must be a mapping: lines of `key: value` (it is 'ssh')"),
        ("slurm: {host: {}}", "slurm.host.kind: is missing, and is required"),
        ("slurm: {host: {kind: pigeon}}", "slurm.host.kind: must be 'local' or 'ssh' (it is 'pigeon')"),
        ("slurm: {host: {kind: ssh, user: a, address: b}}", "slurm.host.known_hosts_file: is missing"),
        (f"slurm: {{host: {SSH[:-1]}, port: 0}}}}", "slurm.host.port: must be 1 or more (it is 0)"),
        (f"slurm: {{host: {SSH[:-1]}, port: ssh}}}}", "slurm.host.port: must be a whole number (it is 'ssh')"),
        (
            f"slurm: {{host: {SSH[:-1]}, key_file: id}}}}",
            "slurm.host.key_file: must be an absolute path, which begins with /",
        ),
        (
            "slurm: {host: {kind: ssh, address: b, known_hosts_file: /k, user: -x}}",
            "slurm.host.user: must be a name of letters, digits",
        ),
        ("slurm: {host: {kind: local}, pol_seconds: 1}", "slurm.pol_seconds: unknown key"),
        ("slurm: {host: {kind: local}, interpreters: []}", "slurm.interpreters: must have 1 or more entries"),
        ("slurm: {host: {kind: local}, interpreters: x}", "slurm.interpreters: must be a list (it is 'x')"),
        ("slurm: {host: {kind: local}, poll_seconds: 500}", "slurm.poll_seconds: must be 300 or less (it is 500)"),
        (
            "slurm: {host: {kind: local}, client: {kind: rest, url: login}}",
            "slurm.client.url: must be http://HOST:PORT, https://HOST:PORT or unix:/PATH, without a path after it (it is 'login')",
        ),
        (LOCAL + "policy: [{}, {raw_flags: perhaps}]", "policy[1].raw_flags: must be true or false (it is 'perhaps')"),
        (
            LOCAL + "pods: {runtime: {kind: docker}}",
            "pods.runtime.kind: must be 'apptainer' or 'process' (it is 'docker')",
        ),
        (LOCAL + "pods: {gpu_types: {a: 3}}", "pods.gpu_types.a: must be text (put quotes around it) (it is 3)"),
        (LOCAL + "workers: 1.5", "workers: must be a whole number (it is 1.5)"),
        (LOCAL + "node: {name: A_b}", "node.name: must be a name as Kubernetes has them"),
        (LOCAL + "pods: {persistent_volumes: [{path: /x}]}", "pods.persistent_volumes[0]: names no nfs"),
        (
            LOCAL + "clusters: {-x: {slurm: {host: {kind: local}}}}",
            "the name -x in clusters: must be a name of letters",
        ),
    ],
)
def test_a_mistake_is_said_in_plain_words(tmp_path: Path, text: str, said: str) -> None:
    assert isinstance(yaml.safe_load(text), dict)
    path = tmp_path / "slurmlet.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as wrong:
        load(path)
    assert f"{path}: {said}" in str(wrong.value)


def _patterns(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for value in schema.values():
            yield from _patterns(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _patterns(value)


@pytest.mark.parametrize("whole", [Configuration, SidecarConfiguration])
def test_every_pattern_has_words(whole: type[Configuration] | type[SidecarConfiguration]) -> None:
    assert set(_patterns(whole.model_json_schema())) <= set(PATTERNS)
