"""Every field of a Pod's spec, as an API server knows it, is honoured, refused by its path, or listed as harmless.

Honoured means that a change of the field changes what becomes of the pod: its job, its plan, its content, its status.
"""

import functools
import json
import re
from typing import Any

import pytest

from .podeffects import effects
from .podschema import ALWAYS_SO, PROJECT, STORED, matters, outcomes, trim

SCHEMA = json.loads(STORED.read_text("utf-8"))
PODS = PROJECT / "docs" / "pods.md"


@functools.cache
def stored_outcomes() -> dict[str, str]:
    """What becomes of the fields that the stored schema names; it takes a second, which only who runs these tests waits."""
    return outcomes(SCHEMA)


def harmless() -> list[str]:
    return [path for path, outcome in stored_outcomes().items() if outcome == "harmless"]


def test_no_field_is_ignored_silently() -> None:
    assert not {path: outcome for path, outcome in stored_outcomes().items() if outcome.startswith("IGNORED")}


def test_the_walk_reaches_everything() -> None:
    assert len(stored_outcomes()) > 400
    assert {"honoured", "refused", "harmless"} == set(stored_outcomes().values())


def test_fields_that_are_named_and_that_nobody_looks_at_are_found_out() -> None:
    unread = {"workingDir", "mode", "failureThreshold"}

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(item) for key, item in value.items() if key not in unread}
        return [without(item) for item in value] if isinstance(value, list) else value

    blind = outcomes(SCHEMA, lambda spec: effects(without(spec)))
    ignored = {path for path, outcome in blind.items() if outcome == "IGNORED"}
    assert {path.rpartition(".")[2] for path in ignored} == unread
    assert "spec.initContainers[0].startupProbe.failureThreshold" in ignored


def steps_of(path: str) -> tuple[str | int, ...]:
    return tuple(int(step) if step.isdigit() else step for step in re.findall(r"\w+", path)[1:])


def test_what_is_listed_as_harmless_changes_nothing() -> None:
    assert not [path for path in harmless() if matters(SCHEMA, steps_of(path))]


def test_what_is_always_so_is_explained_and_not_listed_for_nothing() -> None:
    text = PODS.read_text("utf-8")
    for entry in ALWAYS_SO:
        field = entry.partition(".")[2]
        assert any(path.endswith(f".{field}") for path in harmless()), entry
        assert re.search(rf"`[\w.]*{field}[`.:]", text), f"docs/pods.md does not speak of {entry}"


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
    assert stored_outcomes()[path] == outcome


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
