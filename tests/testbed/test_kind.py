"""The kind component: which Kubernetes is chosen, what kind is told, and what is read from its answers.

Docker and kind themselves stand in as small programs that write down how they were called.
"""

import base64
import json
from pathlib import Path

import pytest
import yaml

from testbed.errors import TestbedError
from testbed.kubernetes.choice import check_choice, chosen
from testbed.kubernetes.control_plane import ControlPlane
from testbed.kubernetes.files import Files
from testbed.kubernetes.kind import Kind, configuration, credentials, gateway, keep_off
from testbed.paths import Layout

WANTED = {"KUBE": "kind"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(cache=tmp_path / "cache", state=tmp_path / "state", port_base=31000)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs `docker` and `kind` in PATH that append their arguments to the file that is returned."""
    written = tmp_path / "calls"
    for name in ("docker", "kind"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {written}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return written


def put_marker(layout: Layout) -> None:
    layout.kubernetes.mkdir(parents=True)
    (layout.kubernetes / "kind-cluster").write_text("slurmlet-31000")


def test_the_built_control_plane_is_chosen_unless_kind_is_asked_for(layout: Layout) -> None:
    assert isinstance(chosen(layout, {}), ControlPlane)
    assert isinstance(chosen(layout, WANTED), Kind)


def test_what_is_there_goes_before_what_is_asked_for(layout: Layout) -> None:
    put_marker(layout)

    assert isinstance(chosen(layout, {}), Kind)


def test_kind_beside_a_built_control_plane_is_an_error(layout: Layout) -> None:
    Files(layout.kubernetes).etcd_data.mkdir(parents=True)

    assert isinstance(chosen(layout, WANTED), ControlPlane)
    with pytest.raises(TestbedError, match="down"):
        check_choice(layout, WANTED)


def test_an_unknown_choice_is_an_error_that_names_the_known_one(layout: Layout) -> None:
    with pytest.raises(TestbedError, match="'kind'"):
        check_choice(layout, {"KUBE": "minikube"})


def test_kind_is_told_to_serve_on_the_testbeds_port_of_loopback() -> None:
    assert yaml.safe_load(configuration(31000))["networking"] == {
        "apiServerAddress": "127.0.0.1",
        "apiServerPort": 31000,
    }


def test_credentials_are_taken_out_of_kinds_kubeconfig() -> None:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    user = {"client-certificate-data": encoded("certificate"), "client-key-data": encoded("key")}
    cluster = {"server": "https://127.0.0.1:31000", "certificate-authority-data": encoded("ca")}
    kubeconfig = yaml.safe_dump({"clusters": [{"cluster": cluster}], "users": [{"user": user}]})

    assert credentials(kubeconfig) == {"ca.crt": b"ca", "admin.crt": b"certificate", "admin.key": b"key"}


def test_the_agents_address_is_the_ipv4_gateway_of_dockers_network() -> None:
    networks = [{"IPAM": {"Config": [{"Subnet": "fc00::/64"}, {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}}]

    assert gateway(networks) == "172.18.0.1"


def test_a_network_without_ipv4_is_an_error() -> None:
    with pytest.raises(TestbedError, match="IPv4"):
        gateway([{"IPAM": {"Config": [{"Gateway": "fc00::1"}]}}])


def test_a_daemon_set_is_kept_off_virtual_nodes_by_affinity() -> None:
    patch = json.loads(keep_off("kindnet")[-1].removeprefix("--patch="))

    [term] = patch["spec"]["template"]["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]}]


def test_stop_deletes_the_cluster_that_was_made_here_and_no_other(layout: Layout, calls: Path) -> None:
    Kind(layout).stop()
    assert not calls.exists()

    put_marker(layout)
    Kind(layout).stop()
    Kind(layout).stop()

    assert calls.read_text() == "kind delete cluster --name slurmlet-31000\n"


def test_without_docker_the_error_says_what_is_needed(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(TestbedError, match="needs docker in PATH"):
        Kind(layout).ensure()

    assert not Kind(layout).is_there
