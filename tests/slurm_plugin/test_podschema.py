"""Every field of a Pod's spec, as an API server knows it, is honoured, refused by its path, or listed as harmless."""

import json

import pytest

from .podschema import STORED, outcomes, trim

SCHEMA = json.loads(STORED.read_text("utf-8"))
OUTCOMES = outcomes(SCHEMA)


def test_no_field_is_ignored_silently() -> None:
    assert not {path: outcome for path, outcome in OUTCOMES.items() if outcome.startswith("IGNORED")}


def test_the_walk_reaches_everything() -> None:
    assert len(OUTCOMES) > 400
    assert {"honoured", "refused", "harmless"} == set(OUTCOMES.values())


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("spec.containers[0].livenessProbe.httpGet.httpHeaders[0].value", "honoured"),
        ("spec.containers[0].securityContext.privileged", "refused"),
        ("spec.containers[0].volumeDevices", "refused"),
        ("spec.resources.claims", "refused"),
        ("spec.hostPID", "refused"),
        ("spec.schedulerName", "harmless"),
        ("spec.tolerations", "harmless"),
    ],
)
def test_some_outcomes_are_what_the_documentation_says(path: str, outcome: str) -> None:
    assert OUTCOMES[path] == outcome


def test_a_field_of_the_future_would_be_noticed() -> None:
    future = {**SCHEMA, "Probe": {**SCHEMA["Probe"], "mood": "string"}}
    assert outcomes(future)["spec.containers[0].livenessProbe.mood"] == "refused"


def test_an_openapi_document_is_trimmed_to_names_and_types() -> None:
    reference = {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}], "default": {}}
    fields = {"containers": {"type": "array", "items": reference}, "nodeName": {"type": "string"}}
    openapi = {
        "components": {
            "schemas": {
                "io.k8s.api.core.v1.PodSpec": {"properties": fields, "required": ["containers"]},
                "io.k8s.api.core.v1.Container": {"properties": {"tty": {"type": "boolean"}}},
                "io.k8s.api.core.v1.Service": {"properties": {}},
            }
        }
    }
    assert trim(openapi) == {
        "Container": {"tty": "boolean"},
        "PodSpec": {"containers": "[Container]!", "nodeName": "string"},
    }
