"""Which programs are taken, from where, and how those we build are stamped."""

import re
from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.kubernetes import gobuild
from testbed.kubernetes.binaries import find_programs, installed_programs, is_wanted
from testbed.kubernetes.download import checksum_of
from testbed.kubernetes.versions import (
    ETCD_VERSION,
    KUBERNETES_MINOR,
    KUBERNETES_VERSION,
    METRICS_SERVER_PACKAGE,
    METRICS_SERVER_VERSION,
    PROGRAMS,
)
from testbed.paths import Layout

GO_MOD = Path(gobuild.__file__).with_name("go") / "go.mod"


def install(directory: Path, answers: dict[str, str]) -> None:
    """Programs that answer any question with their version, as the real ones answer that for it."""
    directory.mkdir(exist_ok=True)
    for name, answer in answers.items():
        program = directory / name
        program.write_text(f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)


def answers(version: str) -> dict[str, str]:
    kubernetes = {name: f"Kubernetes v{version}" for name in PROGRAMS if name.startswith("kube-")}
    return {**kubernetes, "kubectl": f"Client Version: v{version}", "etcd": f"etcd Version: {ETCD_VERSION}"}


def test_programs_of_the_pinned_minor_in_path_are_taken(tmp_path: Path) -> None:
    install(tmp_path, answers(KUBERNETES_VERSION))

    assert installed_programs({"PATH": str(tmp_path)}) == {name: tmp_path / name for name in PROGRAMS}


def test_kubebuilder_assets_come_before_path(tmp_path: Path) -> None:
    install(tmp_path / "assets", {"kubectl": answers(KUBERNETES_VERSION)["kubectl"]})
    install(tmp_path / "path", answers(KUBERNETES_VERSION))

    found = installed_programs({"KUBEBUILDER_ASSETS": str(tmp_path / "assets"), "PATH": str(tmp_path / "path")})

    assert found is not None
    assert found["kubectl"].parent.name == "assets"
    assert found["etcd"].parent.name == "path"


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("kube-scheduler", "Kubernetes v1.20.1"),
        ("etcd", "etcd Version: 3.4.23"),
        ("kubectl", "I do not understand"),
    ],
)
def test_one_program_of_another_version_makes_all_be_passed_over(tmp_path: Path, name: str, answer: str) -> None:
    install(tmp_path, {**answers(KUBERNETES_VERSION), name: answer})

    assert installed_programs({"PATH": str(tmp_path)}) is None


def test_a_broken_program_makes_all_be_passed_over(tmp_path: Path) -> None:
    install(tmp_path, answers(KUBERNETES_VERSION))
    (tmp_path / "kube-apiserver").write_text("#!/bin/sh\nexit 1\n")

    assert installed_programs({"PATH": str(tmp_path)}) is None


def test_the_cache_is_used_when_path_has_not_all(tmp_path: Path) -> None:
    layout = Layout(cache=tmp_path, state=tmp_path / "state", port_base=21000)
    cached = tmp_path / f"kubernetes-{KUBERNETES_VERSION}-etcd-{ETCD_VERSION}"
    cached.mkdir()

    assert find_programs(layout, {"PATH": ""})["etcd"] == cached / "etcd"


def test_a_newer_patch_of_the_minor_is_wanted() -> None:
    major, minor = KUBERNETES_MINOR

    assert is_wanted("kubectl", f"Client Version: v{major}.{minor}.99")
    assert not is_wanted("kubectl", f"Client Version: v{major}.{minor + 1}.0")


def test_versions_are_those_of_go_mod() -> None:
    text = GO_MOD.read_text()

    assert re.search(r"^\tk8s\.io/kubernetes v(\S+)", text, re.M)[1] == KUBERNETES_VERSION  # type: ignore[index]
    assert re.search(r"^\tgo\.etcd\.io/etcd/server/v3 v(\S+)", text, re.M)[1] == ETCD_VERSION  # type: ignore[index]
    assert KUBERNETES_VERSION.startswith("{}.{}.".format(*KUBERNETES_MINOR))
    assert all(f"\t{package}\n" in text for package in PROGRAMS.values())


def test_staging_modules_are_of_the_same_release() -> None:
    pinned = set(re.findall(r"^\tk8s\.io/\S+ => k8s\.io/\S+ v(\S+)$", GO_MOD.read_text(), re.M))

    assert pinned == {"0" + KUBERNETES_VERSION[1:]}


def test_built_programs_carry_a_version_that_kubectl_can_parse() -> None:
    assert f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES_VERSION}" in gobuild.link_flags()


@pytest.mark.parametrize(
    ("version", "enough"),
    [("go1.26.4", True), ("go1.27rc1", True), ("go1.26.3", False), ("go1.25.9", False), ("devel", False)],
)
def test_go_must_be_as_new_as_go_mod_says(version: str, enough: bool) -> None:
    assert gobuild.is_new_enough(version) is enough


def test_metrics_server_is_pinned_to_the_version_that_its_cache_is_named_for() -> None:
    pinned = (gobuild.MODULES / "metrics-server" / "go.mod").read_text()
    assert f"\tsigs.k8s.io/metrics-server v{METRICS_SERVER_VERSION} " in pinned
    assert f"\ntool {METRICS_SERVER_PACKAGE}\n" in pinned


def test_a_checksum_is_taken_from_its_own_line() -> None:
    sums = "aa  etcd-linux-arm64.tar.gz\nbb  etcd-linux-amd64.tar.gz\n"

    assert checksum_of("etcd-linux-amd64.tar.gz", sums) == "bb"
    with pytest.raises(TestbedError, match="does not name etcd-windows"):
        checksum_of("etcd-windows.zip", sums)
