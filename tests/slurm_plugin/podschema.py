"""The schema of a Pod's spec, from an API server's own OpenAPI, and what becomes of each of its fields here.

``pod-schema.json`` is such a schema, trimmed to names and types. To renew it from a running testbed::

    kubectl get --raw /openapi/v3/api/v1 | python -m tests.slurm_plugin.podschema > tests/slurm_plugin/pod-schema.json
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

from slurm_plugin import refusals
from slurm_plugin.config import PodSettings
from slurm_plugin.errors import TranslationError
from slurm_plugin.pod import Model, Pod, PodSpec
from slurm_plugin.refusals import check

Json = dict[str, Any]
Schema = dict[str, dict[str, str]]  # kind → field → its type: "string", "Kind", "[Kind]", "{string}"; "!" is required
STORED = Path(__file__).with_name("pod-schema.json")
PROJECT = Path(__file__).parents[2]
# Read by nobody here: the scheduler and the API server have acted on them, or they only name something for people.
_ACTED_ON = {
    "PodSpec.nodeName",
    "PodSpec.hostUsers",
    "PodSpec.hostNetwork",
    "ContainerPort.hostPort",
    "ContainerPort.protocol",
    "SecurityContext.capabilities",
    "SecurityContext.runAsNonRoot",
    "SecurityContext.allowPrivilegeEscalation",
    "Capabilities.drop",
    "EphemeralVolumeSource.volumeClaimTemplate",
    "PersistentVolumeClaimVolumeSource.claimName",
    "PodSpec.imagePullSecrets",
}


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


def outcomes(schema: Schema) -> dict[str, str]:
    """Return for each field of a Pod's spec, by its path: ``honoured``, ``harmless``, ``refused`` or ``IGNORED``."""
    return dict(_walk(schema, "PodSpec", PodSpec, ()))


Steps = tuple[str | int, ...]


def _walk(schema: Schema, kind: str, model: type[Model] | None, steps: Steps) -> Iterator[tuple[str, str]]:
    for key, of in schema[kind].items():
        path = ".".join(["spec", *(f"{s}" for s in (*steps, key))]).replace(".0", "[0]")
        inner = _model_of(model, key) if model is not None else None
        named = model is not None and key in _aliases(model)
        outcome = _outcome(schema, kind, (*steps, key), named=named)
        yield path, outcome
        plain = of.rstrip("!").strip("[]")
        if inner is not None and outcome == "honoured" and plain in schema:
            below = (*steps, key, 0) if of.startswith("[") else (*steps, key)
            yield from _walk(schema, plain, inner, below)


def _outcome(schema: Schema, kind: str, steps: Steps, *, named: bool) -> str:
    key = str(steps[-1])
    path = ".".join(["spec", *map(str, steps)]).replace(".0", "[0]")
    try:
        check(_pod(schema, steps), PodSettings(host_paths=("/",)), uid=1000, root="/root-of-pods")
    except TranslationError as error:
        if error.field == path or error.field.startswith((f"{path}.", f"{path}[")):
            return "honoured" if named and _depends(error.field, path) else "refused"
        return f"IGNORED (the pod is refused for {error.field})"
    harmless = {
        **refusals._HARMLESS, "EphemeralContainer": frozenset(), "PodSecurityContext": refusals._HARMLESS_POD_SECURITY,
    }  # fmt: skip
    aliases = {"ObjectFieldSelector": "FieldSelector"}
    if key in harmless.get(aliases.get(kind, kind), frozenset()):
        return "harmless"
    if named and (f"{kind}.{key}" in _ACTED_ON or _snake(key) in _read() or key in _read()):
        return "honoured"
    return "IGNORED"


def _depends(refused: str, path: str) -> bool:
    """Whether only the sample's value, or something inside it, was refused: there are others that are honoured."""
    return refused != path or path.rpartition(".")[2] in {
        "runAsUser", "runAsGroup", "mountPropagation", "recursiveReadOnly", "medium", "subPath", "type", "restartPolicy",
        "procMount",
    }  # fmt: skip


def _pod(schema: Schema, steps: Steps) -> Pod:
    """Return a pod with a value at that place, and around it only what must be there."""
    spec: Json = {"containers": [{"name": "main", "image": "busybox"}]}
    here: Any = spec
    kind = "PodSpec"
    for step, after in zip(steps, (*steps[1:], None), strict=True):
        if isinstance(step, int):
            here = here[step]
            continue
        of = schema[kind][step].rstrip("!")
        kind = of.strip("[]")
        if after is None:
            here[step] = sample(schema, of)
        elif step not in here:
            here[step] = sample(schema, of) if kind in schema else {}
        here = here[step]
    return Pod.model_validate({"metadata": {"name": "web"}, "spec": spec})


def _aliases(model: type[Model]) -> dict[str, str]:
    return {field.alias or name: name for name, field in model.model_fields.items()}


def _model_of(model: type[Model], key: str) -> type[Model] | None:
    name = _aliases(model).get(key)
    return None if name is None else _model_in(model.model_fields[name].annotation)


def _model_in(annotation: object) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _snake(key: str) -> str:
    return re.sub(r"(?<!^)([A-Z]+)", lambda found: "_" + found[1].lower(), key)


@cache
def _read() -> frozenset[str]:
    """Return every name that the code reads as an attribute, or as a key of JSON."""
    names: set[str] = set()
    for path in (*(PROJECT / "slurm_plugin").rglob("*.py"), *(PROJECT / "vkubelet").rglob("*.py")):
        if path.name in {"pod.py", "refusals.py"} and path.parent.name == "slurm_plugin":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return frozenset(names)


if __name__ == "__main__":
    json.dump(trim(json.load(sys.stdin)), sys.stdout, indent=1)
    print()
