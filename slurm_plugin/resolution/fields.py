"""The downward API: what ``fieldRef`` and ``resourceFieldRef`` mean, for environments and volumes alike. Pure.

Rules: ``pkg/fieldpath`` and ``pkg/api/v1/resource`` of Kubernetes 1.36.
"""

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal

from ..errors import UnsupportedFieldError
from ..pod import Container, Pod, ResourceFieldSelector
from ..quantity import parse_quantity

NODE_FIELDS = frozenset({"status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs"})
"""What only the compute node knows; the runner fills it in."""

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")
_ESCAPES = {
    "\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", '"': r"\"", "\\": r"\\",
}  # fmt: skip
_DEFAULTED = ("cpu", "memory", "ephemeral-storage")


def field_value(pod: Pod, field_path: str, where: str) -> str:
    """Return a field's text; a label or annotation that is not there is empty. UnsupportedFieldError names ``where``."""
    metadata, spec = pod.metadata, pod.spec
    if match := _SUBSCRIPT.fullmatch(field_path):
        return (metadata.labels if match[1] == "labels" else metadata.annotations).get(match[2], "")
    match field_path:
        case "metadata.name":
            return metadata.name
        case "metadata.namespace":
            return metadata.namespace
        case "metadata.uid":
            return metadata.uid
        case "metadata.labels":
            return format_map(metadata.labels)
        case "metadata.annotations":
            return format_map(metadata.annotations)
        case "spec.nodeName":
            return spec.node_name
        case "spec.serviceAccountName":
            return spec.service_account_name
        case _:
            raise UnsupportedFieldError(where, f"{field_path!r} is not a field that the downward API offers here")


def resource_value(
    pod: Pod, selector: ResourceFieldSelector, container: Container | None, where: str, default: Mapping[str, Decimal]
) -> str:
    """Return a resource in units of the divisor, rounded up. A limit that is not set is ``default``'s.

    ``container`` is the one that a selector without a name means; volumes have none and must name it.
    """
    chosen = container if not selector.container_name else _container(pod, selector.container_name)
    if chosen is None:
        raise UnsupportedFieldError(where, f"the pod has no container {selector.container_name!r}")
    kind, _, resource = selector.resource.partition(".")
    amounts = {"limits": chosen.resources.limits, "requests": chosen.resources.requests}.get(kind)
    if amounts is None or not (resource in _DEFAULTED or resource.startswith("hugepages-")):
        raise UnsupportedFieldError(where, f"{selector.resource!r} is not a resource that the downward API offers")
    fallback = default.get(resource, Decimal(0)) if kind == "limits" else Decimal(0)
    value = parse_quantity(amounts[resource], where) if resource in amounts else fallback
    divisor = Decimal(1) if selector.divisor is None else parse_quantity(selector.divisor, f"{where}.divisor")
    return str(int((value / (divisor or Decimal(1))).to_integral_value(ROUND_CEILING)))


def _container(pod: Pod, name: str) -> Container | None:
    return next((c for c in (*pod.spec.containers, *pod.spec.init_containers) if c.name == name), None)


def format_map(values: Mapping[str, str]) -> str:
    """Return ``key="value"`` lines, sorted, without a newline at the end."""
    return "\n".join(f"{key}={quote(values[key])}" for key in sorted(values))


def quote(text: str) -> str:
    """Return a text as Go's ``%q`` writes it: a double-quoted literal."""
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if escape := _ESCAPES.get(character):
        return escape
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
