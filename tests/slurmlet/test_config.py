from pathlib import Path

import pytest

from slurm_plugin.errors import ConfigurationError
from slurmlet.config import Configuration, load

HOST = {"kind": "local"}


def configuration(**fields: object) -> Configuration:
    return Configuration.model_validate({"slurm": {"host": HOST}, **fields})


def test_one_node_is_told_the_file_as_it_stands() -> None:
    whole = configuration(node={"name": "n"})
    (part,) = whole.parts()
    assert (part.agent, part.site, part.cluster) == (whole, whole, "")


def test_several_nodes_have_names_ports_partitions_and_directories_of_their_own() -> None:
    whole = configuration(
        node={"address": "10.0.0.1", "labels": {"a": "b"}},
        api={"port": 7000},
        nodes=[{"name": "cpu", "partitions": ["cpu", "long"]}, {"name": "gpu", "labels": {}, "port": 9000}],
    )
    cpu, gpu = whole.parts()
    assert [(p.agent.node.name, p.agent.api.port) for p in (cpu, gpu)] == [("cpu", 7000), ("gpu", 9000)]
    assert (cpu.site.slurm.partitions, gpu.site.slurm.partitions) == (("cpu", "long"), ())
    assert (cpu.agent.node.labels, gpu.agent.node.labels) == ({"a": "b"}, {})
    assert cpu.agent.node.address == gpu.agent.node.address == "10.0.0.1"
    assert cpu.agent.api.certificate_directory == Path("/var/lib/slurmlet/pki/cpu")


def test_a_node_on_another_cluster_is_told_of_that_one() -> None:
    other = {"slurm": {"host": HOST, "poll_seconds": 9}, "policy": [{"accounts": ["x"]}]}
    parts = configuration(clusters={"other": other}, nodes=[{"name": "a"}, {"name": "b", "cluster": "other"}]).parts()
    assert [part.cluster for part in parts] == ["", "other"]
    assert [part.site.slurm.poll_seconds for part in parts] == [2, 9]
    assert parts[1].site.policy[0].accounts == ("x",)
    assert parts[1].site.pods == parts[0].site.pods


SWITCHBOARD = "switchboard: {certificate: {certificate_file: /c, key_file: /k}, client_ca_file: /ca}\n"


def test_every_node_may_be_behind_a_sidecar_of_its_own() -> None:
    board = {"certificate": {"certificate_file": "/c", "key_file": "/k"}, "client_ca_file": "/ca"}
    nodes = [{"name": "a", "sidecar": {"name": "site-a"}}, {"name": "b", "sidecar": {"url": "https://login"}}]
    first, second = Configuration.model_validate({"switchboard": board, "nodes": nodes}).parts()
    assert first.sidecar is not None
    assert second.sidecar is not None
    assert (first.sidecar.name, second.sidecar.url) == ("site-a", "https://login")
    assert first.cluster != second.cluster


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: [{name: a, sidecar: {name: s}}]", "switchboard: needed where a sidecar has a name"),
        (SWITCHBOARD + "sidecar: {url: 'https://login'}", "switchboard: needed where a sidecar has a name"),
        (SWITCHBOARD + "nodes: [{name: a, sidecar: {name: s}}, {name: b, sidecar: {name: s}}]", "s: one node each"),
        (SWITCHBOARD + "nodes: [{name: a, sidecar: {name: s, ca_file: /x}}]", "ca_file and certificate are under"),
        ("sidecar: {token_file: /t}", "needs url, or the name"),
        ("nodes: [{name: a, sidecar: {url: 'https://x'}}]\npolicy: [{}]", "policy: every node is behind a sidecar"),
        ("nodes: [{name: a, partitions: [p], sidecar: {url: 'https://x'}}]", "not beside sidecar"),
    ],
)
def test_sidecars_that_could_not_be_reached_are_a_mistake(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "slurmlet.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: [{name: a}, {name: a}]", "two nodes have the name a"),
        ("nodes: [{name: a, port: 10251}, {name: b}]", "two nodes have the port 10251"),
        ("nodes: [{name: a, cluster: x}]", r"nodes\[0\]\.cluster: no cluster 'x'; those under clusters are: none"),
        ("nodes: [{partitions: [a]}]", r"nodes\[0\]\.name"),
        ("slurm: {host: {kind: local}, root: /x}\nnodes: [{name: a}, {name: b}]", r"must have \{node\} in it"),
    ],
)
def test_nodes_that_would_meet_are_a_mistake(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "slurmlet.yaml"
    path.write_text(text if "slurm:" in text else f"slurm: {{host: {{kind: local}}}}\n{text}\n")
    with pytest.raises(ConfigurationError, match=message):
        load(path)
