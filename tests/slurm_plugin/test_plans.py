import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_plugin.config import PodSettings
from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.plans import make_plan
from slurm_plugin.pod import Pod
from slurm_plugin.runner import plan

from .manifests import REALISTIC, container, make_pod

Json = dict[str, Any]


def planned(pod: Pod, **settings: Any) -> plan.Plan:
    return make_plan(pod, PodSettings.model_validate(settings), images="/images", places={})


def only(fields: Json | None = None, **spec: Any) -> plan.Container:
    """The plan of the one container of a pod."""
    return planned(make_pod(container(**(fields or {})), **spec)).containers[0]


TEXTS = st.text(max_size=20)
NUMBERS = st.integers(0, 2**31)
ACTIONS = st.builds(
    plan.Action,
    st.sampled_from(["exec", "http", "tcp", "grpc", "sleep"]),
    st.lists(TEXTS, max_size=3).map(tuple), TEXTS, NUMBERS, TEXTS, TEXTS,
    st.lists(st.tuples(TEXTS, TEXTS), max_size=2).map(tuple), NUMBERS,
)  # fmt: skip
PROBES = st.none() | st.builds(plan.Probe, ACTIONS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.integers(-1, 9))
WORDS = st.none() | st.lists(TEXTS, max_size=3).map(tuple)
CONTAINERS = st.builds(
    plan.Container,
    name=TEXTS, kind=st.sampled_from([plan.INIT, plan.SIDECAR, plan.APP]),
    image=st.builds(plan.Image, TEXTS, TEXTS, TEXTS, st.booleans()), command=WORDS, args=WORDS, working_dir=TEXTS,
    restart_policy=TEXTS, mounts=st.lists(st.builds(plan.Mount, TEXTS, TEXTS, TEXTS, st.booleans()), max_size=2).map(tuple),
    termination_message_path=TEXTS, termination_message_policy=TEXTS, read_only_root=st.booleans(), gpu=TEXTS,
    stdin=st.booleans(), stdin_once=st.booleans(), tty=st.booleans(), startup_probe=PROBES, liveness_probe=PROBES, readiness_probe=PROBES,
    post_start=st.none() | ACTIONS, pre_stop=st.none() | ACTIONS,
)  # fmt: skip
PLANS = st.builds(
    plan.Plan,
    version=st.just(plan.VERSION), namespace=TEXTS, name=TEXTS, uid=TEXTS, hostname=TEXTS,
    host_aliases=st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=2).map(tuple)), max_size=2).map(tuple),
    restart_policy=TEXTS, grace_seconds=NUMBERS, deadline_seconds=NUMBERS,
    runtime=st.builds(plan.Runtime, TEXTS, TEXTS, st.lists(TEXTS, max_size=2).map(tuple)), images=TEXTS, scratch=TEXTS,
    log_max_bytes=NUMBERS, log_max_files=NUMBERS,
    volumes=st.lists(st.builds(plan.Volume, TEXTS, TEXTS, TEXTS, TEXTS, NUMBERS), max_size=2).map(tuple),
    containers=st.lists(CONTAINERS, max_size=2).map(tuple),
)  # fmt: skip


@given(PLANS)
def test_any_plan_survives_json(value: plan.Plan) -> None:
    assert plan.plan_from_json(json.loads(json.dumps(plan.to_json(value)))) == value


@given(st.lists(st.builds(plan.EnvEntry, TEXTS, TEXTS, st.booleans(), TEXTS), max_size=3).map(tuple))
def test_any_environment_survives_json(value: tuple[plan.EnvEntry, ...]) -> None:
    assert plan.env_from_json(json.loads(json.dumps(plan.to_json(value)))) == value


def test_a_plan_of_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="version 2"):
        plan.plan_from_json({"version": 2})


def test_a_realistic_pod_is_planned_whole() -> None:
    value = planned(Pod.model_validate(REALISTIC))
    assert [(c.name, c.kind, c.restart_policy) for c in value.containers] == [
        ("setup", plan.INIT, "OnFailure"),
        ("proxy", plan.SIDECAR, "Always"),
        ("server", plan.APP, "Always"),
    ]
    assert [(v.name, v.kind) for v in value.volumes] == [
        ("tmp", plan.EMPTY_DIR),
        ("config", plan.CONTENT),
        ("kube-api-access-7xk2p", plan.CONTENT),
    ]
    server = value.containers[2]
    assert server.mounts[1] == plan.Mount("config", "/etc/app", "app", read_only=True)
    assert server.read_only_root
    assert server.liveness_probe == plan.Probe(
        plan.Action("http", (), "", 8080, "/healthz", "HTTP", (), 0), 0, 10, 1, 1, 3, -1
    )
    assert server.pre_stop == plan.Action("sleep", (), "", 0, "", "", (), 1)
    assert plan.plan_from_json(json.loads(json.dumps(plan.to_json(value)))) == value


@pytest.mark.parametrize(
    ("pod_policy", "init"), [("Never", "Never"), ("OnFailure", "OnFailure"), ("Always", "OnFailure")]
)
def test_an_init_container_is_tried_again_only_where_the_pod_is(pod_policy: str, init: str) -> None:
    value = planned(make_pod(restartPolicy=pod_policy, initContainers=[container("init")]))
    assert [c.restart_policy for c in value.containers] == [init, pod_policy]


@pytest.mark.parametrize(
    ("fields", "command", "args"),
    [
        ({}, None, None), ({"command": ["a"]}, ("a",), None), ({"args": ["b"]}, None, ("b",)), ({"command": [], "args": []}, None, None),
        ({"command": ["a"], "args": ["b", ""]}, ("a",), ("b", "")),
    ],
)  # fmt: skip
def test_an_empty_command_is_an_absent_one(fields: Json, command: object, args: object) -> None:
    value = only(fields)
    assert (value.command, value.args) == (command, args)


PORTS = [{"containerPort": 80}, {"name": "web", "containerPort": 8080}]


@pytest.mark.parametrize(("port", "number"), [(1234, 1234), ("web", 8080), ("99", 99)])
def test_a_probes_port_is_a_number_or_a_name_of_the_container(port: int | str, number: int) -> None:
    value = only({"ports": PORTS, "startupProbe": {"tcpSocket": {"port": port}}})
    assert value.startup_probe is not None
    assert value.startup_probe.action.port == number


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"livenessProbe": {"httpGet": {"port": "nope"}}}, "livenessProbe.httpGet.port"),
        ({"readinessProbe": {}}, "readinessProbe"),
        ({"lifecycle": {"postStart": {}}}, "lifecycle.postStart"),
        ({"lifecycle": {"preStop": {"tcpSocket": {"port": "nope"}}}}, "lifecycle.preStop.tcpSocket.port"),
    ],
)
def test_a_handler_that_can_do_nothing_is_refused_by_its_path(fields: Json, field: str) -> None:
    with pytest.raises(UnsupportedFieldError) as caught:
        only(fields)
    assert caught.value.field == f"spec.containers[0].{field}"


@pytest.mark.parametrize(
    ("volume", "kind", "limit"),
    [
        ({}, plan.EMPTY_DIR, 0),
        ({"emptyDir": {}}, plan.EMPTY_DIR, 0),
        ({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, plan.MEMORY, 2**20),
        ({"hostPath": {"path": "/data", "type": "Directory"}}, plan.HOST_PATH, 0),
        ({"secret": {"secretName": "s"}}, plan.CONTENT, 0),
        ({"downwardAPI": {"items": []}}, plan.CONTENT, 0),
    ],
)
def test_every_source_of_a_volume_has_its_kind(volume: Json, kind: str, limit: int) -> None:
    value = planned(make_pod(volumes=[{"name": "v", **volume}])).volumes[0]
    assert (value.kind, value.size_limit) == (kind, limit)


@pytest.mark.parametrize(
    ("name", "hostname"), [("web", "web"), ("a" * 70, "a" * 63), ("a" * 60 + ".-.bcd", "a" * 60), ("a.b", "a.b")]
)
def test_a_host_name_is_at_most_63_characters(name: str, hostname: str) -> None:
    assert planned(make_pod(metadata={"name": name})).hostname == hostname


def test_secrets_and_environments_are_not_in_the_plan() -> None:
    pod = make_pod(container(env=[{"name": "PASSWORD", "value": "hunter2"}]))
    assert "hunter2" not in json.dumps(plan.to_json(planned(pod)))
