"""interLink's JSON, field by field as its Go types spell it."""

import base64

import pytest

from sidecar.interlink.wire import WireError, answer_for, create_request, created_job, log_request, retrieved_pod
from slurm_plugin.contract import LogOptions, PodContent, VolumeFile
from slurm_plugin.pod import Pod
from slurm_plugin.runner.plan import EnvEntry

POD = Pod.model_validate(
    {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
        "spec": {
            "initContainers": [{"name": "first", "image": "busybox"}],
            "containers": [
                {
                    "name": "main",
                    "image": "busybox",
                    "envFrom": [{"configMapRef": {"name": "c"}}],
                    "volumeMounts": [
                        {"name": "secret", "mountPath": "/s"},
                        {"name": "conf", "mountPath": "/c"},
                        {"name": "token", "mountPath": "/t"},
                        {"name": "empty", "mountPath": "/e"},
                    ],
                }
            ],
            "volumes": [
                {"name": "secret", "secret": {"secretName": "sec", "items": [{"key": "a", "path": "b"}]}},
                {"name": "conf", "configMap": {"name": "c"}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
                {"name": "empty", "emptyDir": {}},
            ],
        },
    }
)
CONTENT = PodContent(
    env={
        "main": (
            EnvEntry("A", "1", expand=False, node_field=""),
            EnvEntry("B", "$(A)$(IP)", expand=True, node_field=""),
            EnvEntry("IP", "", expand=False, node_field="status.podIP"),
        )
    },
    volumes={
        "secret": (VolumeFile("b", b"\x00\xff", 0o600),),
        "conf": (VolumeFile("k", b"v", 0o644), VolumeFile("bin", b"\xff", 0o644)),
        "token": (VolumeFile("token", b"t", 0o600),),
    },
)


def test_a_plugin_gets_each_container_with_the_objects_that_it_mounts() -> None:
    data = retrieved_pod(POD, CONTENT)
    assert [container["name"] for container in data["container"]] == ["first", "main"]
    main = data["container"][1]
    assert set(main) == {"name", "configMaps", "projectedvolumemaps", "secrets", "emptyDirs"}
    assert main["secrets"][0]["metadata"] == {"name": "sec", "namespace": "ns"}
    assert base64.b64decode(main["secrets"][0]["data"]["b"]) == b"\x00\xff"
    assert main["configMaps"][0]["data"] == {"k": "v"}
    assert main["configMaps"][0]["binaryData"] == {"bin": "/w=="}
    assert main["projectedvolumemaps"][0]["metadata"]["name"] == "token"
    assert data["container"][0]["secrets"] == []


def test_the_api_server_gets_the_objects_in_lists() -> None:
    data = create_request(POD, CONTENT)
    assert set(data) == {"pod", "configmaps", "secrets", "projectedvolumesmaps", "jobscriptURL"}
    assert [len(data[key]) for key in ("configmaps", "secrets", "projectedvolumesmaps")] == [1, 1, 1]


def test_environments_arrive_resolved_as_far_as_the_cluster_knows() -> None:
    (main,) = create_request(POD, CONTENT)["pod"]["spec"]["containers"]
    assert "envFrom" not in main
    assert main["env"] == [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "1$(IP)"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]


def test_the_pod_itself_is_not_changed() -> None:
    before = POD.model_dump_json()
    create_request(POD, CONTENT)
    assert POD.model_dump_json() == before


@pytest.mark.parametrize("answer", [{"PodUID": "u", "PodJID": "7"}, [{"PodUID": "u", "PodJID": "7"}], {"PodJID": "7"}])
def test_the_jobs_id_is_found_in_new_and_old_answers(answer: object) -> None:
    assert created_job(answer, "u") == "7"


@pytest.mark.parametrize("answer", [None, [], {}, "7", {"PodJID": ""}, {"PodUID": "x", "PodJID": "7"}, [1, 2]])
def test_an_answer_without_a_job_of_this_pod_is_an_error(answer: object) -> None:
    with pytest.raises(WireError):
        created_job(answer, "u")


def test_null_and_other_pods_are_no_answer_and_nonsense_is_an_error() -> None:
    assert answer_for(None, "u") is None
    assert answer_for([{"UID": "x"}], "u") is None
    found = answer_for([{"UID": "u", "JID": "7", "containers": None, "initContainers": None}], "u")
    assert found is not None
    assert (found.job_id, found.containers) == ("7", ())
    for nonsense in ({}, "x", [{"UID": "u", "containers": ["x"]}]):
        with pytest.raises(WireError):
            answer_for(nonsense, "u")


def test_a_log_request_spells_its_options_as_interlink_does() -> None:
    assert log_request(POD, "main", LogOptions())["Opts"] == {
        "Tail": 0, "Bytes": 0, "Timestamps": False, "Follow": False, "Previous": False,
        "SinceSeconds": 0, "SinceTime": "0001-01-01T00:00:00Z",
    }  # fmt: skip
    options = LogOptions(follow=True, since_time=1.5, limit_bytes=9)
    assert log_request(POD, "main", options)["Opts"]["SinceTime"] == "1970-01-01T00:00:01Z"
    assert log_request(POD, "main", options)["Opts"]["Bytes"] == 9
