import base64
from decimal import Decimal

import pytest

from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.pod import Pod
from slurm_plugin.resolution.environment import environments
from slurm_plugin.resolution.objects import (
    CONFIG_MAP,
    SECRET,
    MissingEnvironmentError,
    Objects,
    Reference,
    Service,
    references,
)

NODE = {"cpu": Decimal(16)}
WEB = Service("default", "my-web", "10.0.0.9", (("http", "TCP", 80), ("dns-tcp", "UDP", 53)))
API = Service("default", "kubernetes", "10.0.0.1", (("https", "TCP", 443),))
HEADLESS = Service("default", "headless", "None", (("", "TCP", 1),))
ELSEWHERE = Service("other", "away", "10.0.0.7", (("", "TCP", 1),))


def b64(text: bytes) -> str:
    return base64.b64encode(text).decode()


OBJECTS = Objects(
    objects={
        Reference(CONFIG_MAP, "settings"): {"data": {"COLOR": "blue", "size": "7"}, "binaryData": {"blob": b64(b"\1")}},
        Reference(SECRET, "password"): {"data": {"word": b64(b"s3cret"), "raw": b64(b"\xff\xfe")}},
        Reference(CONFIG_MAP, "absent"): None,
    }
)


def pod(container: dict | None = None, **spec) -> Pod:
    body = {"name": "main", "image": "i", **(container or {})}
    return Pod.model_validate(
        {"metadata": {"name": "p", "uid": "u", "labels": {"app": "x"}}, "spec": {"containers": [body], **spec}}
    )


def environment(container: dict, objects: Objects = OBJECTS, **spec) -> list[tuple[str, str]]:
    return [(e.name, e.value) for e in environments(pod(container, **spec), objects, NODE)["main"]]


def test_env_from_comes_first_in_order_with_its_prefix_and_env_after_it():
    container = {
        "envFrom": [{"configMapRef": {"name": "settings"}}, {"prefix": "P_", "secretRef": {"name": "password"}}],
        "env": [{"name": "COLOR", "value": "red"}, {"name": "LATER", "value": "$(COLOR)"}],
    }
    assert environment(container) == [
        ("COLOR", "blue"), ("size", "7"), ("P_raw", "\udcff\udcfe"), ("P_word", "s3cret"), ("COLOR", "red"),
        ("LATER", "$(COLOR)"),
    ]  # fmt: skip


def test_only_literal_values_are_expanded():
    container = {
        "env": [
            {"name": "A", "value": "$(B)"},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "COLOR"}}},
            {"name": "D"},
        ]
    }
    entries = environments(pod(container), OBJECTS, NODE)["main"]
    assert [(e.name, e.value, e.expand) for e in entries] == [
        ("A", "$(B)", True),
        ("C", "blue", False),
        ("D", "", True),
    ]


def test_addresses_are_left_to_the_compute_node():
    container = {"env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}
    (entry,) = environments(pod(container), OBJECTS, NODE)["main"]
    assert (entry.value, entry.node_field) == ("", "status.podIP")


def test_fields_and_resources_are_resolved():
    container = {
        "env": [
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ]
    }
    assert environment(container) == [("APP", "x"), ("CPUS", "16")]


def test_optional_references_that_are_missing_leave_the_variable_out():
    missing = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k", "optional": True}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "password", "key": "no", "optional": True}}},
    ]
    assert environment({"env": missing, "envFrom": [{"configMapRef": {"name": "absent", "optional": True}}]}) == []


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "absent"}}]}, 'configmap "absent" not found'),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k"}}}]},
            'configmap "absent" not found',
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "password", "key": "no"}}}]},
            "couldn't find key no in Secret default/password",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "blob"}}}]},
            "couldn't find key blob in ConfigMap default/settings",
        ),
    ],
)
def test_required_references_that_are_missing_are_named(container, message):
    with pytest.raises(MissingEnvironmentError) as error:
        environment(container)
    assert str(error.value) == message
    assert error.value.transient


def test_service_variables_come_first_and_only_from_the_pods_namespace_and_the_api_server():
    objects = Objects(services=(WEB, HEADLESS, ELSEWHERE, API))
    names = dict(environment({"env": [{"name": "MY_WEB_PORT", "value": "mine"}]}, objects))
    assert names["KUBERNETES_SERVICE_HOST"] == "10.0.0.1"
    assert names["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert names["MY_WEB_SERVICE_HOST"] == "10.0.0.9"
    assert names["MY_WEB_SERVICE_PORT"] == "80"
    assert names["MY_WEB_SERVICE_PORT_DNS_TCP"] == "53"
    assert names["MY_WEB_PORT_80_TCP"] == "tcp://10.0.0.9:80"
    assert names["MY_WEB_PORT_53_UDP_PROTO"] == "udp"
    assert names["MY_WEB_PORT_53_UDP_PORT"] == "53"
    assert names["MY_WEB_PORT_53_UDP_ADDR"] == "10.0.0.9"
    assert names["MY_WEB_PORT"] == "mine"
    assert not [name for name in names if name.startswith(("HEADLESS", "AWAY"))]


def test_without_service_links_only_the_api_server_is_there():
    names = dict(environment({}, Objects(services=(WEB, API)), enableServiceLinks=False))
    assert {name.split("_")[0] for name in names} == {"KUBERNETES"}


def test_a_nul_is_refused():
    objects = Objects(objects={Reference(SECRET, "s"): {"data": {"k": b64(b"a\0b")}}})
    with pytest.raises(UnsupportedFieldError, match="NUL"):
        environment({"envFrom": [{"secretRef": {"name": "s"}}]}, objects)


def test_init_containers_have_environments_and_references_too():
    subject = pod(initContainers=[{"name": "init", "image": "i", "envFrom": [{"configMapRef": {"name": "settings"}}]}])
    assert references(subject) == {Reference(CONFIG_MAP, "settings")}
    assert {e.name: e.value for e in environments(subject, OBJECTS, NODE)["init"]}["COLOR"] == "blue"
