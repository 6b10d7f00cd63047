"""What interLink sends, as its Go code writes it, and what becomes of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from sidecar.interlink.requests import creation, log_asked, pod_of, pods_of, was_created
from sidecar.interlink.wire import WireError, create_request, log_request, retrieved_pod
from slurm_plugin.contract import LogOptions, VolumeFile
from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.resolution.objects import MissingContentError
from slurm_plugin.runner.plan import EnvEntry

from .test_wire import CONTENT, POD

RECORDED = Path(__file__).parent / "recorded"
UID = "4f0b2f3e-6a5d-4d5e-9a53-0d8b1a7c2e11"


def recorded(name: str) -> Any:
    return json.loads((RECORDED / f"{name}.json").read_text("utf-8"))


def entry(name: str, value: str, *, node_field: str = "") -> EnvEntry:
    return EnvEntry(name, value, expand=not node_field, node_field=node_field)


@pytest.mark.parametrize("name", ["create", "requests"])
def test_what_the_api_server_and_the_virtual_kubelet_send_are_the_same_pod(name: str) -> None:
    pod, content = creation(recorded(name))
    assert (pod.metadata.namespace, pod.metadata.name, pod.metadata.uid) == ("physics", "recorded", UID)
    assert content.env["main"] == (entry("KUBERNETES_SERVICE_HOST", "10.0.0.1"), entry("A", "1"))
    assert content.volumes == {
        "conf": (VolumeFile("key", b"value\n", 0o644), VolumeFile("other", b"x", 0o644)),
        "keys": (VolumeFile("b/a", b"\x00\xff", 0o400),),
        "kube-api-access-x": (
            VolumeFile("ca.crt", b"PEM", 0o644),
            VolumeFile("namespace", b"physics", 0o644),
            VolumeFile("token", b"ey.J.w", 0o644),
        ),
    }


def test_a_list_of_one_as_older_api_servers_sent_is_read_too() -> None:
    assert creation([recorded("create")])[0].metadata.uid == UID


@pytest.mark.parametrize("made", [create_request, retrieved_pod])
def test_what_our_own_provider_sends_arrives_as_it_was(made: Any) -> None:
    before = POD.model_copy(update={"metadata": POD.metadata.model_copy(update={"uid": UID})})
    pod, content = creation(json.loads(json.dumps(made(before, CONTENT))))
    assert pod.spec.containers[0].command == before.spec.containers[0].command
    files = {name: {file.path: file.data for file in files} for name, files in content.volumes.items()}
    assert files == {name: {file.path: file.data for file in files} for name, files in CONTENT.volumes.items()}
    values = [(each.name, each.value, each.node_field) for each in content.env["main"]]
    assert values == [("A", "1", ""), ("B", "1$(IP)", ""), ("IP", "", "status.podIP")]


def test_an_environment_that_was_not_resolved_is_made_of_the_objects_sent_along() -> None:
    body = recorded("requests")
    main = body["pod"]["spec"]["containers"][0]
    main["envFrom"] = [{"configMapRef": {"name": "settings"}}]
    main["env"] = [{"name": "B", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "z"}}}]
    _, content = creation(body)
    assert [(each.name, each.value) for each in content.env["main"]] == [
        ("key", "value\n"),
        ("other", "x"),
        ("B", "no"),
    ]


def test_an_object_that_did_not_come_along_is_named() -> None:
    body = recorded("requests")
    body["configmaps"] = None
    with pytest.raises(MissingContentError, match='configmap "settings" not found'):
        creation(body)


def test_a_volume_that_no_container_mounts_needs_nothing() -> None:
    body = recorded("requests")
    body["configmaps"] = None
    mounts = body["pod"]["spec"]["containers"][0]["volumeMounts"]
    body["pod"]["spec"]["containers"][0]["volumeMounts"] = [mount for mount in mounts if mount["name"] != "conf"]
    assert "conf" not in creation(body)[1].volumes


def test_modes_of_a_projected_volume_are_the_pods() -> None:
    body = recorded("create")
    projected = body["pod"]["spec"]["volumes"][2]["projected"]
    projected["defaultMode"] = 0o440
    projected["sources"][1]["configMap"]["items"][0]["mode"] = 0o400
    files = creation(body)[1].volumes["kube-api-access-x"]
    assert {file.path: file.mode for file in files} == {"ca.crt": 0o400, "namespace": 0o440, "token": 0o440}


def test_a_script_made_elsewhere_is_refused_by_its_name() -> None:
    with pytest.raises(UnsupportedFieldError, match="jobScript"):
        creation(recorded("create") | {"jobScript": "#!/bin/sh\n"})


@pytest.mark.parametrize(
    "body",
    [None, [], "x", {}, {"pod": None}, {"pod": {"metadata": {"name": "a", "uid": "../x"}, "spec": {}}},
     {"container": [{"secrets": "x"}]}, {"container": [{"secrets": ["x"]}]}, {"container": 5},
     {"configmaps": [{"metadata": {"name": "a"}, "data": ["x"]}]}],
)  # fmt: skip
def test_what_no_interlink_type_allows_is_an_error_that_says_so(body: Any) -> None:
    whole = recorded("create") | body if isinstance(body, dict) and body and "pod" not in body else body
    with pytest.raises(WireError):
        creation(whole)


def test_the_pods_of_a_question_and_of_a_deletion_are_read() -> None:
    (pod,) = pods_of(recorded("status"))
    assert pod.metadata.uid == pod_of(recorded("delete")).metadata.uid == UID
    assert pods_of(None) == pods_of([]) == ()
    assert not was_created(pod)
    body = recorded("delete")
    body["metadata"]["annotations"]["JobID"] = "7"
    assert was_created(pod_of(body))


def test_a_log_request_is_read_as_interlink_means_it() -> None:
    asked = log_asked(recorded("logs"), 1000.0)
    assert (asked.uid, asked.container, asked.options) == (UID, "main", LogOptions(tail_lines=5))
    options = LogOptions(follow=True, previous=True, timestamps=True, since_time=7.0, limit_bytes=9)
    pod = POD.model_copy(update={"metadata": POD.metadata.model_copy(update={"uid": UID})})
    assert log_asked(log_request(pod, "main", options), 0.0).options == options
    seconds = recorded("logs")
    seconds["Opts"] = {"SinceSeconds": 10, "SinceTime": "0001-01-01T00:00:00Z"}
    assert log_asked(seconds, 1000.0).options == LogOptions(since_time=990.0)


@pytest.mark.parametrize(
    "options",
    [{"Tail": 1, "Bytes": 1}, {"SinceSeconds": 1, "SinceTime": "2026-01-01T00:00:00.123456789Z"}, {"Tail": -1},
     {"Tail": "x"}, {"SinceTime": "yesterday"}, [1]],
)  # fmt: skip
def test_options_that_exclude_each_other_or_are_none_are_refused(options: Any) -> None:
    with pytest.raises(WireError):
        log_asked(recorded("logs") | {"Opts": options}, 0.0)
