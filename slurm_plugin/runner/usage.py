"""The usage file: what the pod's running containers have used, and how often its probes have said what.

The runner writes it beside ``state.json``, far less often: it is for whoever draws curves, and nothing depends on it.
Times are seconds since the epoch.
"""

from typing import Any, Dict, NamedTuple, Tuple

_LAST_TIME = 253402300800  # 9999-12-31
_LARGEST = 1 << 63
_MOST = 1000  # containers, or counters: more than any pod has
_LONGEST = 253  # characters of a name
_RESULTS = ("successful", "failed")
_KINDS = ("Startup", "Liveness", "Readiness")


class ContainerUsed(NamedTuple):
    """One running container. ``cpu_nanoseconds`` is cumulative since ``started_at`` and never falls."""

    name: str
    started_at: float
    cpu_nanoseconds: int
    working_set_bytes: int


class ProbeCount(NamedTuple):
    """How often one kind of probe (Startup, Liveness, Readiness) of a container was ``successful``, or ``failed``."""

    container: str
    kind: str
    result: str
    total: int


class Usage(NamedTuple):
    """What one run of the job has used up to ``time``."""

    job_id: str
    restart: int
    time: float
    containers: Tuple[ContainerUsed, ...]
    probes: Tuple[ProbeCount, ...]


def usage_to_json(usage: Usage) -> Dict[str, Any]:
    """Turn it into what ``json.dumps`` takes."""
    data = dict(usage._asdict())  # type: Dict[str, Any]
    data["containers"] = [dict(container._asdict()) for container in usage.containers]
    data["probes"] = [dict(probe._asdict()) for probe in usage.probes]
    return data


def usage_from_json(data: Dict[str, Any]) -> Usage:
    """Read it. ValueError, TypeError or KeyError for what no runner writes: the pod's own job can write the file."""
    containers, probes = data["containers"], data["probes"]
    if not isinstance(containers, list) or not isinstance(probes, list) or len(containers) + len(probes) > _MOST:
        raise ValueError("not the usage of a pod")
    return Usage(
        _text(data["job_id"]),
        _whole(data["restart"]),
        _moment(data["time"]),
        tuple(
            ContainerUsed(
                _text(item["name"]),
                _moment(item["started_at"]),
                _whole(item["cpu_nanoseconds"]),
                _whole(item["working_set_bytes"]),
            )
            for item in containers
        ),
        tuple(
            ProbeCount(
                _text(item["container"]),
                _one_of(_KINDS, item["kind"]),
                _one_of(_RESULTS, item["result"]),
                _whole(item["total"]),
            )
            for item in probes
        ),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text: %.80r" % (value,))
    if len(value) > _LONGEST:
        raise ValueError("too long: %.80r" % (value,))
    return value


def _one_of(known: Tuple[str, ...], value: Any) -> str:
    if value not in known:
        raise ValueError("%.80r is none of %s" % (value, ", ".join(known)))
    return str(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
        raise ValueError("not a count: %.80r" % (value,))
    return value


def _moment(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _LAST_TIME:
        raise ValueError("not a time: %.80r" % (value,))
    return float(value)
