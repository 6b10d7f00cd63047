"""A PodStatus as a patch, and whether it says anything new. Pure.

Tried against a real API server: container status lists are replaced whole; conditions merge by their type, so foreign
ones survive; ``podIPs`` and ``hostIPs`` merge by ip and are refused unless the patch says to replace them.
"""

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

_REPLACED = ("podIPs", "hostIPs")


def status_patch(uid: str, status: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> Json:
    """Return the body of a strategic merge patch of ``pods/NAME/status``; the UID is its precondition.

    ``annotations`` are set beside the status; none is removed.
    """
    body = dict(status)
    for key in _REPLACED:
        if key in body:
            body[key] = [*body[key], {"$patch": "replace"}]
    metadata: Json = {"uid": uid, "annotations": dict(annotations)} if annotations else {"uid": uid}
    return {"metadata": metadata, "status": body}


def differs(status: Mapping[str, Any], present: Mapping[str, Any]) -> bool:
    """Whether writing ``status`` would change what is there. A null asks for absence."""
    for key, value in status.items():
        there = present.get(key)
        if key == "conditions":
            there = _chosen(there or (), {condition["type"] for condition in value})
            value = _chosen(value, None)
        if _plain(value) != _plain(there):
            return True
    return False


def _chosen(conditions: Any, kinds: set[str] | None) -> Json:
    return {
        c["type"]: {k: v for k, v in c.items() if k != "lastProbeTime"}
        for c in conditions
        if kinds is None or c["type"] in kinds
    }


def _plain(value: Any) -> Any:
    """Return a value without what the API server leaves out: nulls, empty texts, empty maps and lists."""
    if isinstance(value, Mapping):
        items = ((key, _plain(item)) for key, item in value.items())
        return {key: item for key, item in items if item not in (None, "", {}, [])} or None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value] or None
    return None if value == "" else value
