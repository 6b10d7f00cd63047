"""The schema of a Pod's spec, from an API server's own OpenAPI, and what becomes of each of its fields here.

A field is honoured if pods that differ in it alone have different effects (``podeffects``), and by nothing else: that
some code names it proves nothing.

``pod-schema.json`` is such a schema, trimmed to names and types. To renew it from a running testbed::

    kubectl get --raw /openapi/v3/api/v1 | python -m tests.slurm_plugin.podschema > tests/slurm_plugin/pod-schema.json
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

from slurm_plugin import refusals
from slurm_plugin.config import PodSettings
from slurm_plugin.errors import TranslationError
from slurm_plugin.pod import Model, Pod, PodSpec
from slurm_plugin.refusals import check

from .podeffects import effects

Json = dict[str, Any]
Effects = Callable[[Json], Any]
Schema = dict[str, dict[str, str]]  # kind → field → its type: "string", "Kind", "[Kind]", "{string}"; "!" is required
Steps = tuple[str | int, ...]
PROJECT = Path(__file__).parents[2]
STORED = Path(__file__).with_name("pod-schema.json")
# Harmless too, though the models name them (docs/pods.md, "Honoured": what is always so, or acted on by the control plane).
ALWAYS_SO = {
    "PodSpec.hostUsers",
    "PodSpec.hostNetwork",
    "ContainerPort.hostPort",
    "ContainerPort.protocol",
    "SecurityContext.runAsNonRoot",
    "SecurityContext.allowPrivilegeEscalation",
    "Capabilities.drop",
    "EphemeralVolumeSource.volumeClaimTemplate",
}
# The API server itself refuses these (Kubernetes 1.36, pkg/apis/core/validation, allowedEphemeralContainerFields).
_NOT_EPHEMERAL = {
    "lifecycle", "livenessProbe", "ports", "readinessProbe", "resizePolicy", "resources", "restartPolicy",
    "restartPolicyRules", "startupProbe",
}  # fmt: skip
_ENV_FIELD = {"env": [{"name": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}
_ENV_ACCOUNT = {"env": [{"name": "x", "valueFrom": {"fieldRef": {"fieldPath": "spec.serviceAccountName"}}}]}
_HTTP = {"livenessProbe": {"httpGet": {"port": "x"}}}
_DOWNWARD = {"items": [{"path": "x", "fieldRef": {"fieldPath": "metadata.name"}}]}
_LIMITED = {"resources": {"limits": {"cpu": "4", "memory": "8"}}}
# In what pod a field means anything, where its own place is not enough: a pattern of its path, and that pod's spec; what
# is at "." stands beside the field itself.
_SETTINGS: dict[str, Json] = {
    r".*(configMapKeyRef|secretKeyRef)\.key": {".": {"name": "x"}},
    r".*env\[0]\.valueFrom\.resourceFieldRef\.divisor": {".": {"resource": "limits.cpu"}},
    r".*\.items\[0]\.resourceFieldRef\..*": {
        ".": {"resource": "limits.memory", "containerName": "main"}, "containers": [_LIMITED],
    },
    r".*envFrom\[0]\.prefix": {".": {"configMapRef": {"name": "x"}}},
    r".*Probe\.\w+(Seconds|Threshold)": {".": {"exec": {"command": ["x"]}}},
    r"spec\.containers\[0]\.ports\[0]\.\w+": {".": {"name": "x"}, "containers": [_HTTP]},
    r"spec\.initContainers\[0]\.ports\[0]\.\w+": {".": {"name": "x"}, "initContainers": [_HTTP]},
    r"spec\.nodeName": {"containers": [_ENV_FIELD]},
    r"spec\.serviceAccountName": {"containers": [_ENV_ACCOUNT]},
    r"spec\.volumes\[0]\.configMap\.(defaultMode|items.*)": {"volumes": [{"configMap": {"name": "x"}}]},
    r"spec\.volumes\[0]\.secret\.(defaultMode|items.*)": {"volumes": [{"secret": {"secretName": "x"}}]},
    r"spec\.volumes\[0]\.downwardAPI\..*[mM]ode": {"volumes": [{"downwardAPI": _DOWNWARD}]},
    r"spec\.volumes\[0]\.projected\.defaultMode": {"volumes": [{"projected": {"sources": [{"configMap": {"name": "x"}}]}}]},
    r".*sources\[0]\.configMap\.items.*": {"volumes": [{"projected": {"sources": [{"configMap": {"name": "x"}}]}}]},
    r".*sources\[0]\.secret\.items.*": {"volumes": [{"projected": {"sources": [{"secret": {"name": "x"}}]}}]},
    r".*sources\[0]\.downwardAPI\..*mode": {"volumes": [{"projected": {"sources": [{"downwardAPI": _DOWNWARD}]}}]},
    r".*persistentVolumeClaim\.readOnly": {"containers": [{"volumeMounts": [{"name": "x", "mountPath": "/x"}]}]},
}  # fmt: skip


def trim(openapi: Json) -> Schema:
    """Return the kinds that a Pod's spec is made of, out of ``/openapi/v3/api/v1``."""
    kinds = openapi["components"]["schemas"]
    found: Schema = {}
    waiting = ["io.k8s.api.core.v1.PodSpec"]
    while waiting:
        name = waiting.pop()
        kind = kinds[name]
        if name.rpartition(".")[2] in found or "properties" not in kind:
            continue
        required = set(kind.get("required", ()))
        fields = {key: _type(value) + ("!" if key in required else "") for key, value in kind["properties"].items()}
        found[name.rpartition(".")[2]] = dict(sorted(fields.items()))
        waiting += [path.rpartition("/")[2] for value in kind["properties"].values() for path in _references(value)]
    return dict(sorted(found.items()))


def _references(value: Json) -> list[str]:
    return re.findall(r'"\$ref": "([^"]*)"', json.dumps(value))


def _type(value: Json) -> str:
    if value.get("type") == "array":
        return f"[{_type(value['items'])}]"
    if value.get("type") == "object" and "additionalProperties" in value:
        return f"{{{_type(value['additionalProperties'])}}}"
    references = _references(value)
    return references[0].rpartition(".")[2] if references else str(value.get("type", "any"))


def sample(schema: Schema, kind: str) -> Any:
    """Return a value of a type that says something."""
    kind = kind.rstrip("!")
    if kind.startswith("["):
        return [sample(schema, kind[1:-1])]
    if kind.startswith("{"):
        return {"x": sample(schema, kind[1:-1])}
    if kind in schema:
        value = {key: sample(schema, of) for key, of in schema[kind].items() if of.endswith("!")}
        image = {"image": "busybox"}
        needed = {"Container": image, "EphemeralContainer": image, "HostPathVolumeSource": {"path": "/x"}}
        return value | needed.get(kind, {})
    return {"string": "x", "boolean": True, "integer": 1, "IntOrString": 1, "Quantity": "1"}.get(kind, {})


def outcomes(schema: Schema, effects_of: Effects = effects) -> dict[str, str]:
    """Return for each field of a Pod's spec, by its path: ``honoured``, ``harmless``, ``refused`` or ``IGNORED``.

    ``effects_of``: what becomes of a spec (as JSON).
    """
    return dict(_walk(schema, "PodSpec", PodSpec, (), effects_of))


def _walk(
    schema: Schema, kind: str, model: type[Model] | None, steps: Steps, effects_of: Effects
) -> Iterator[tuple[str, str]]:
    for key, of in schema[kind].items():
        here = (*steps, key)
        inner = _model_of(model, key) if model is not None else None
        plain = of.rstrip("!").strip("[]")
        whole = plain in schema and (inner is not None or plain == "PodSecurityContext")
        outcome = _refused(schema, here)
        if kind == "EphemeralContainer" and key in _NOT_EPHEMERAL:
            outcome = "refused"
        elif not outcome and is_harmless(kind, key):
            outcome = "harmless"
        elif not outcome:
            outcome = "honoured" if whole or matters(schema, here, effects_of) else "IGNORED"
        yield path_of(here), outcome
        if whole and outcome == "honoured":
            yield from _walk(schema, plain, inner, (*here, 0) if of.startswith("[") else here, effects_of)


def path_of(steps: Steps) -> str:
    """Return a field's path as refusals name it."""
    return ".".join(["spec", *map(str, steps)]).replace(".0", "[0]")


def _refused(schema: Schema, steps: Steps) -> str:
    """Return ``refused`` if pods with this field are; ``honoured`` if only some of its values are; else nothing."""
    path = path_of(steps)
    try:
        pod = Pod.model_validate({"metadata": {"name": "web"}, "spec": _spec(schema, steps, _ANY)})
        check(pod, PodSettings(host_paths=("/",)), uid=1000, root="/root-of-pods")
    except TranslationError as error:
        if error.field == path or error.field.startswith((f"{path}.", f"{path}[")):
            return "honoured" if error.field != path or path.rpartition(".")[2] in _SOMETIMES else "refused"
        return f"IGNORED (the pod is refused for {error.field})"
    return ""


# Only the sample's value is refused: there are others that are not.
_SOMETIMES = {
    "runAsUser", "runAsGroup", "mountPropagation", "recursiveReadOnly", "medium", "subPath", "type", "restartPolicy",
    "procMount",
}  # fmt: skip


def is_harmless(kind: str, key: str) -> bool:
    listed = {
        **refusals._HARMLESS, "ObjectFieldSelector": frozenset({"apiVersion"}),
        "PodSecurityContext": refusals._HARMLESS_POD_SECURITY,
    }  # fmt: skip
    return f"{kind}.{key}" in ALWAYS_SO or key in listed.get(kind, frozenset())


def matters(schema: Schema, steps: Steps, effects_of: Effects = effects) -> bool:
    """Whether pods that differ in this field alone have different effects."""
    found = {repr(effects_of(_spec(schema, steps, value))) for value in _values(schema, steps)}
    return len(found) > 1


_ANY, _ABSENT = object(), object()


def _values(schema: Schema, steps: Steps) -> list[Any]:
    """Return values that ought to make a difference; ``_ABSENT`` is none at all, where that is allowed."""
    key, of = str(steps[-1]), _type_at(schema, steps)
    plain = of.rstrip("!")
    by_type: dict[str, list[Any]] = {
        "boolean": [False, True], "integer": [1, 2], "IntOrString": [1, 2], "Quantity": ["1", "2"], "string": ["x", "y"],
        "[string]": [["x"], ["y"]], "{string}": [{"x": "x"}, {"x": "y"}], "{Quantity}": [{"cpu": "1"}, {"cpu": "2"}],
    }  # fmt: skip
    values = _VALUES.get(key) or by_type.get(plain) or [sample(schema, of)]
    return [*values, *([] if of.endswith("!") else [_ABSENT])]


_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
# Where "x" and "y" are no values.
_VALUES: dict[str, list[Any]] = {
    "affinity": [
        {
            "nodeAffinity": {
                _REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "x", "operator": "Exists"}]}]}
            }
        }
    ],
    "fieldPath": ["metadata.name", "metadata.uid"],
    "resource": ["limits.cpu", "limits.memory"],
    "containerName": ["main", "other"],
    "medium": ["", "Memory"],
    "nodeSelector": [{"x": "y"}],
    "seLinuxOptions": [{"level": "x"}],
    "windowsOptions": [{"hostProcess": True}],
}


def _type_at(schema: Schema, steps: Steps) -> str:
    kind, of = "PodSpec", ""
    for step in steps:
        if isinstance(step, str):
            of = schema[kind][step]
            kind = of.rstrip("!").strip("[]")
    return of


def _spec(schema: Schema, steps: Steps, value: Any) -> Json:
    """Return a spec with this value there, around it what must be there and what gives it a meaning (``_SETTINGS``)."""
    spec: Json = {"containers": [{"name": "main", "image": "busybox"}]}
    here: Any = spec
    for count, step in enumerate(steps[:-1], 1):
        if isinstance(step, str) and step not in here:
            here[step] = sample(schema, _type_at(schema, steps[:count]))
        here = here[step]
    key, path = steps[-1], path_of(steps)
    for pattern, setting in _SETTINGS.items():
        if re.fullmatch(pattern, path):
            _merge(spec, {name: value for name, value in setting.items() if name != "."})
            _merge(here, setting.get(".", {}))
    if value is _ANY:
        value = sample(schema, _type_at(schema, steps)) or _VALUES.get(str(key), [{}])[0]
    if value is _ABSENT:
        here.pop(key, None)
    else:
        here[key] = value
    return spec


def _merge(into: Any, setting: Any) -> None:
    """Put a setting into a spec: what is there already stays, but for a value in the setting's own place."""
    for key, value in setting.items():
        if isinstance(value, dict):
            _merge(into.setdefault(key, {}), value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            _merge(into.setdefault(key, [{}])[0], value[0])
        else:
            into[key] = deepcopy(value)


def _aliases(model: type[Model]) -> dict[str, str]:
    return {field.alias or name: name for name, field in model.model_fields.items()}


def _model_of(model: type[Model], key: str) -> type[Model] | None:
    name = _aliases(model).get(key)
    return None if name is None else _model_in(model.model_fields[name].annotation)


def _model_in(annotation: object) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


if __name__ == "__main__":
    json.dump(trim(json.load(sys.stdin)), sys.stdout, indent=1)
    print()
