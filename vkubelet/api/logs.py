"""``/containerLogs``: parameters, and why there is no log yet, in the kubelet's words and status codes. Pure.

Source: ``pkg/kubelet/server/server.go`` (``getContainerLogs``), ``pkg/kubelet/kubelet_pods.go``
(``validateContainerLogStatus``) and ``ValidatePodLogOptions`` of Kubernetes 1.36.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from slurm_plugin.contract import LogOptions

from ..podcache import CachedPod

_INTEGER = re.compile("[+-]?[0-9]{1,19}")
_STREAMS = ("All", "Stdout", "Stderr")


class LogsRefusedError(Exception):
    """The request can't be served. ``status`` is HTTP's, the text is the body."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def log_options(query: Mapping[str, str], *, now: float) -> LogOptions:
    """Read the parameters; ``now`` is seconds since the epoch. Raises LogsRefusedError: 400 or 422."""
    try:
        tail = query.get("tailLines") if query.get("tail") in {None, "", "all"} else query["tail"]
        tail_lines = None if tail is None or query.get("tail") == "all" else _int64(tail)
        limit_bytes = _integer(query, "limitBytes")
        since_seconds = _integer(query, "sinceSeconds")
        since_time = _time(query.get("sinceTime"))
    except ValueError as error:
        raise LogsRefusedError(400, '{"message": "Unable to decode query."}') from error
    wrong = (
        (tail_lines is not None and tail_lines < 0)
        or (limit_bytes is not None and limit_bytes < 1)
        or (since_seconds is not None and (since_seconds < 1 or since_time is not None))
        or query.get("stream", "All") not in _STREAMS
        or (
            query.get("stream", "All") != "All" and tail_lines is not None
        )  # as the kubelet: it would have to count both
    )
    if wrong:
        raise LogsRefusedError(422, '{"message": "Invalid request."}')
    return LogOptions(
        follow=_flag(query, "follow"),
        previous=_flag(query, "previous"),
        timestamps=_flag(query, "timestamps"),
        tail_lines=tail_lines,
        since_time=now - since_seconds if since_seconds is not None else since_time,
        limit_bytes=limit_bytes,
        stream=query.get("stream", "All"),
    )


def _integer(query: Mapping[str, str], name: str) -> int | None:
    return _int64(query[name]) if query.get(name) else None


def _int64(text: str) -> int:
    """Read a number as Go's ``strconv.ParseInt`` does; Python's own would take more. Raises ValueError."""
    if not _INTEGER.fullmatch(text) or not -(1 << 63) <= (value := int(text)) < 1 << 63:
        raise ValueError(f"no int64: {text[:50]!r}")
    return value


def _time(text: str | None) -> float | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no time zone")
    return moment.timestamp()


def _flag(query: Mapping[str, str], name: str) -> bool:
    """Read a boolean as the API server's own codec does: there without a value is true, and so is nonsense."""
    return name in query and query[name].lower() not in {"false", "0"}


def check_pod(pod: CachedPod | None, name: str) -> CachedPod:
    """Return the pod. Raises LogsRefusedError if there is none."""
    if pod is None:
        raise LogsRefusedError(404, f'pod "{name}" does not exist\n')
    return pod


def check_container(pod: Mapping[str, Any], container: str, *, previous: bool) -> None:
    """Raise LogsRefusedError unless the container has, or had, something that can have written a log."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    kinds = ("containers", "initContainers", "ephemeralContainers")
    if not any(each["name"] == container for kind in kinds for each in spec.get(kind) or ()):
        raise LogsRefusedError(404, f'container "{container}" not found in pod "{name}"\n')
    what = f'container "{container}" in pod "{name}"'
    status = pod.get("status") or {}
    lists = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    found = next((s for kind in lists for s in status.get(kind) or () if s["name"] == container), None)
    if found is None:
        raise LogsRefusedError(400, f"{what} is not available")
    state, last = found.get("state") or {}, (found.get("lastState") or {}).get("terminated") or {}
    if previous:
        if not last.get("containerID"):
            raise LogsRefusedError(400, f'previous terminated container "{container}" in pod "{name}" not found')
        return
    if "running" in state or (state.get("terminated") or {}).get("containerID") or last.get("containerID"):
        return
    if "terminated" in state:
        raise LogsRefusedError(400, f"{what} is terminated")
    raise LogsRefusedError(400, f"{what} is waiting to start{_why(state.get('waiting'))}")


def _why(waiting: Mapping[str, Any] | None) -> str:
    if waiting is None:
        return " - no logs yet"
    match waiting.get("reason", ""):
        case "ErrImagePull":
            return ": image can't be pulled"
        case "ImagePullBackOff":
            return ": trying and failing to pull image"
        case reason:
            return f": {reason}"
