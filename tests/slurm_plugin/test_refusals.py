import copy
from typing import Any

import pytest

from slurm_plugin.config import PodSettings
from slurm_plugin.errors import PolicyError, TranslationError, UnsupportedFieldError
from slurm_plugin.pod import Pod
from slurm_plugin.refusals import check

from .manifests import REALISTIC, container, make_pod

SETTINGS = PodSettings(host_paths=("/scratch", "/data/open"))
ROOT = "/home/alice/.slurmlet/node"
Json = dict[str, Any]


def refused(pod: Pod, *, uid: int | None = 1000) -> str:
    """The field that a pod is refused for."""
    with pytest.raises(TranslationError) as caught:
        check(pod, SETTINGS, uid=uid, root=ROOT)
    return caught.value.field


def test_a_pod_as_the_api_server_returns_it_is_accepted() -> None:
    check(Pod.model_validate(REALISTIC), SETTINGS, uid=1000, root=ROOT)


@pytest.mark.parametrize(
    "spec",
    [
        {"hostPID": True},
        {"hostIPC": True},
        {"shareProcessNamespace": True},
        {"runtimeClassName": "gvisor"},
        {"resourceClaims": [{"name": "c"}]},
        {"aFieldOfTheFuture": {}},
        {"aFieldOfTheFuture": 0},
        {"aFieldOfTheFuture": "x"},
    ],
)
def test_a_field_of_the_spec_is_refused_by_its_path(spec: Json) -> None:
    assert refused(make_pod(**spec)) == f"spec.{next(iter(spec))}"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image", ""),
        ("restartPolicy", "Always"),
        ("securityContext.privileged", True),
        ("securityContext.runAsUser", 0),
        ("securityContext.runAsUser", 1001),
        ("securityContext.runAsGroup", 0),
        ("securityContext.procMount", "Unmasked"),
        ("securityContext.capabilities.add", ["NET_ADMIN"]),
        ("securityContext.seLinuxOptions", {"level": "s0"}),
        ("securityContext.windowsOptions", {"hostProcess": True}),
        ("lifecycle.stopSignal", "SIGUSR1"),
        ("resources.claims", [{"name": "c"}]),
        ("volumeDevices", [{"name": "d", "devicePath": "/dev/x"}]),
        ("restartPolicyRules", [{"action": "Restart"}]),
        ("workingDir", "/a\0b"),
        ("livenessProbe.aFieldOfTheFuture", 1),
    ],
)
def test_a_field_of_a_container_is_refused_by_its_path(field: str, value: object) -> None:
    for part in reversed(field.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    assert refused(make_pod(container() | value)) == f"spec.containers[0].{field}"
    if field != "restartPolicy":
        assert refused(make_pod(initContainers=[container() | value])) == f"spec.initContainers[0].{field}"


@pytest.mark.parametrize(
    ("mount", "field"),
    [
        ({"subPath": "/etc"}, "subPath"),
        ({"subPath": "a/../../b"}, "subPath"),
        ({"subPath": ".."}, "subPath"),
        ({"subPath": "a\nb"}, "subPath"),
        ({"mountPath": "/a\nb"}, "mountPath"),
        ({"subPathExpr": "$(A)", "subPath": "a"}, "subPathExpr"),
        ({"mountPropagation": "Bidirectional"}, "mountPropagation"),
        ({"recursiveReadOnly": "Enabled"}, "recursiveReadOnly"),
        ({"aFieldOfTheFuture": {}}, "aFieldOfTheFuture"),
    ],
)
def test_a_mount_is_refused_by_its_path(mount: Json, field: str) -> None:
    pod = make_pod(
        container(volumeMounts=[{"name": "ok", "mountPath": "/ok"}, {"name": "v", "mountPath": "/v", **mount}])
    )
    assert refused(pod) == f"spec.containers[0].volumeMounts[1].{field}"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"command": ["a", "b\0"]}, "command[1]"),
        ({"args": ["\0"]}, "args[0]"),
        ({"env": [{"name": "A", "value": "x\0"}]}, "env[0].value"),
        ({"env": [{"name": "A=B", "value": "x"}]}, "env[0].name"),
        ({"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "k"}}}]}, "env[0].valueFrom.fileKeyRef"),
    ],
)
def test_what_no_process_can_receive_is_refused(fields: Json, field: str) -> None:
    assert refused(make_pod(container(**fields))) == f"spec.containers[0].{field}"


@pytest.mark.parametrize(
    ("volume", "field"),
    [
        ({"csi": {"driver": "d"}}, "csi"),
        ({"nfs": {"server": "s", "path": "/"}}, "nfs"),
        ({"image": {}}, "image"),  # an empty source is a source: it must not become an emptyDir
        ({"emptyDir": {"medium": "HugePages"}}, "emptyDir.medium"),
        ({"hostPath": {"path": "/etc"}}, "hostPath.path"),
        ({"hostPath": {"path": "/scratch2"}}, "hostPath.path"),
        ({"hostPath": {"path": "/scratch/../etc"}}, "hostPath.path"),
        ({"hostPath": {"path": "scratch"}}, "hostPath.path"),
        ({"hostPath": {"path": "/data"}}, "hostPath.path"),
        ({"hostPath": {"path": "/scratch/a\nb"}}, "hostPath.path"),
        ({"hostPath": {"path": "/scratch/a", "type": "CharDevice"}}, "hostPath.type"),
        ({"projected": {"sources": [{"clusterTrustBundle": {}}]}}, "projected.sources[0].clusterTrustBundle"),
    ],
)
def test_a_volume_is_refused_by_its_path(volume: Json, field: str) -> None:
    assert (
        refused(make_pod(volumes=[{"name": "ok", "emptyDir": {}}, {"name": "v", **volume}]))
        == f"spec.volumes[1].{field}"
    )


@pytest.mark.parametrize("path", ["/home", "/home/alice", ROOT, f"{ROOT}/pods", f"/{ROOT}/bin/"])
def test_no_pod_mounts_the_files_of_other_pods(path: str) -> None:
    pod = make_pod(volumes=[{"name": "v", "hostPath": {"path": path}}])
    with pytest.raises(PolicyError, match="holds the files of other pods"):
        check(pod, PodSettings(host_paths=("/home",)), uid=1000, root=ROOT)


@pytest.mark.parametrize("whose", ["pod", "container"])
def test_the_jobs_own_group_is_accepted_and_no_other(whose: str) -> None:
    def asking(**context: int) -> Pod:
        if whose == "pod":
            return make_pod(securityContext=context)
        return make_pod(container(securityContext=context))

    for context in ({"runAsGroup": 100}, {"runAsUser": 1000, "runAsGroup": 100}):
        check(asking(**context), SETTINGS, uid=1000, gid=100, root=ROOT)
        for gid in (0, 1000, None):
            with pytest.raises(UnsupportedFieldError) as caught:
                check(asking(**context), SETTINGS, uid=1000, gid=gid, root=ROOT)
            assert caught.value.field.endswith("securityContext.runAsGroup")


@pytest.mark.parametrize("path", ["/scratch", "/scratch/", "/scratch/a/b", "//scratch/a", "/data/open/./x"])
def test_a_host_path_below_an_allowed_one_is_accepted(path: str) -> None:
    check(make_pod(volumes=[{"name": "v", "hostPath": {"path": path}}]), SETTINGS, uid=1000, root=ROOT)


@pytest.mark.parametrize(
    ("context", "field"),
    [
        ({"runAsUser": 0}, "runAsUser"),
        ({"runAsUser": 1001}, "runAsUser"),
        ({"runAsGroup": 100}, "runAsGroup"),
        ({"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}, "sysctls"),
        ({"supplementalGroups": [1]}, "supplementalGroups"),
        ({"seLinuxOptions": {"level": "s0"}}, "seLinuxOptions"),
        ({"aFieldOfTheFuture": 1}, "aFieldOfTheFuture"),
    ],
)
def test_the_pods_security_context_is_refused_by_its_path(context: Json, field: str) -> None:
    assert refused(make_pod(securityContext=context)) == f"spec.securityContext.{field}"


@pytest.mark.parametrize(("user", "uid", "accepted"), [(1000, 1000, True), (1000, None, False), (0, 0, True)])
def test_a_pod_may_name_the_user_that_its_job_runs_as(user: int, uid: int | None, accepted: bool) -> None:
    for pod in (
        make_pod(securityContext={"runAsUser": user}),
        make_pod(container(securityContext={"runAsUser": user})),
    ):
        if accepted:
            check(pod, SETTINGS, uid=uid, root=ROOT)
        else:
            assert refused(pod, uid=uid).endswith("securityContext.runAsUser")


def test_only_init_containers_may_be_sidecars() -> None:
    check(make_pod(initContainers=[container(restartPolicy="Always")]), SETTINGS, uid=1000, root=ROOT)
    assert (
        refused(make_pod(initContainers=[container(restartPolicy="Never")])) == "spec.initContainers[0].restartPolicy"
    )


HARMLESS: Json = {
    "affinity": {"podAntiAffinity": {}},
    "automountServiceAccountToken": False,
    "dnsPolicy": "None",
    "hostNetwork": True,
    "hostUsers": True,
    "os": {"name": "linux"},
    "priorityClassName": "low",
    "schedulerName": "kueue",
    "schedulingGates": [{"name": "g"}],
    "securityContext": {"fsGroup": 2000, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "tolerations": [{"operator": "Exists"}],
}


@pytest.mark.parametrize("field", HARMLESS)
def test_what_changes_nothing_for_a_job_is_accepted(field: str) -> None:
    check(make_pod(**{field: HARMLESS[field]}), SETTINGS, uid=1000, root=ROOT)


@pytest.mark.parametrize("nothing", [None, False, "", []])
def test_an_unknown_field_that_says_nothing_is_as_good_as_absent(nothing: object) -> None:
    check(make_pod(aFieldOfTheFuture=nothing), SETTINGS, uid=1000, root=ROOT)


def _objects(value: object, path: str) -> list[tuple[str, Json]]:
    """Every object in a manifest that one of our models reads, by its path."""
    if isinstance(value, list):
        return [found for index, item in enumerate(value) for found in _objects(item, f"{path}[{index}]")]
    if not isinstance(value, dict):
        return []
    opaque = {"affinity", "tolerations", "topologySpreadConstraints", "resizePolicy", "seccompProfile", "limits",
              "requests", "nodeSelector"}  # fmt: skip
    inner = [found for key, item in value.items() if key not in opaque for found in _objects(item, f"{path}.{key}")]
    return [(path, value), *inner]


PATHS = [path for path, _ in _objects(REALISTIC["spec"], "spec")]


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_field_is_refused_wherever_it_stands(path: str) -> None:
    manifest = copy.deepcopy(REALISTIC)
    dict(_objects(manifest["spec"], "spec"))[path]["aFieldOfTheFuture"] = {"x": 1}
    with pytest.raises(UnsupportedFieldError) as caught:
        check(Pod.model_validate(manifest), SETTINGS, uid=1000, root=ROOT)
    assert caught.value.field == f"{path}.aFieldOfTheFuture"
