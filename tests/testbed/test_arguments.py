"""The control plane's arguments hold the promises that tests of trust rely on."""

from pathlib import Path

import pytest

from testbed.kubernetes import arguments
from testbed.kubernetes.files import Files
from testbed.paths import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(cache=tmp_path / "cache", state=tmp_path / "state", port_base=30000)


@pytest.fixture
def files(layout: Layout) -> Files:
    files = Files(layout.kubernetes)
    files.ensure()
    return files


def test_every_program_listens_on_loopback_only(layout: Layout, files: Files) -> None:
    programs = (arguments.api_server, arguments.controller_manager, arguments.scheduler)

    assert all("--bind-address=127.0.0.1" in program(layout, files) for program in programs)
    listening = [word for word in arguments.etcd(layout, files) if "-urls=" in word]
    assert len(listening) == 4
    assert all("=https://127.0.0.1:" in word for word in listening)


def test_the_api_server_authorizes_nodes_and_verifies_kubelets(layout: Layout, files: Files) -> None:
    words = arguments.api_server(layout, files)

    assert "--authorization-mode=Node,RBAC" in words
    assert "--enable-admission-plugins=NodeRestriction" in words
    assert f"--kubelet-certificate-authority={files.kubelet_serving_ca.pair.certificate}" in words


def test_controllers_are_not_throttled(layout: Layout, files: Files) -> None:
    for program in (arguments.controller_manager, arguments.scheduler):
        assert {"--kube-api-qps=1000", "--kube-api-burst=2000"} <= set(program(layout, files))


def test_every_named_certificate_and_key_exists(layout: Layout, files: Files) -> None:
    programs = (arguments.etcd, arguments.api_server, arguments.controller_manager, arguments.scheduler)
    words = [word for program in programs for word in program(layout, files)]
    paths = [Path(word.partition("=")[2]) for word in words if word.endswith((".crt", ".key", ".pub"))]

    assert len(paths) > 20
    assert all(path.exists() for path in paths)
