"""The state: what the runner says of itself and its containers, and how it is written and read.

The runner writes it whole, by rename, after every change; ``version`` only grows within a run. A run is one start of
the job: (job id, SLURM_RESTART_COUNT). ``podstatus`` turns it into a PodStatus. Times are seconds since the epoch.
"""

from typing import Any, Dict, NamedTuple, Optional, Tuple, Union

from .plan import Edition

FORMAT = 1
MAX_EVENTS = 64
_LAST_TIME = 253402300800  # 9999-12-31: no calendar writes what is later
_WHOLE_LIMIT = 1 << 31  # the API's int32


class Waiting(NamedTuple):
    """Not running, and why: ``PodInitializing``, ``ErrImagePull``, ``CrashLoopBackOff``…"""

    reason: str
    message: str


class Running(NamedTuple):
    """Running since."""

    started_at: float


class Terminated(NamedTuple):
    """Ended. ``signal`` is 0 when it ended by itself; ``exit_code`` is then its own, else 128 + signal."""

    exit_code: int
    signal: int
    reason: str
    message: str
    started_at: float
    finished_at: float


Condition = Union[Waiting, Running, Terminated]


class ContainerState(NamedTuple):
    """One container, now and before. ``image_id`` is the digest reference once known, else empty.

    ``image``: what its last run was started with, as the pod then had it; empty before the first.
    """

    name: str
    kind: str
    state: Condition
    last: Optional[Terminated]
    restart_count: int
    started: bool
    ready: bool
    image_id: str
    image: str = ""


class Event(NamedTuple):
    """Something to tell the user. ``sequence`` grows by one; ``container`` is empty for the pod's own.

    ``type`` is ``Normal`` or ``Warning``; ``reason`` one of the kubelet's: Pulling, Pulled, Created, Started, …
    ``times``: how often it happened from ``at`` to ``last_at`` (0 from a runner of an older version, which does not count).
    """

    sequence: int
    type: str
    reason: str
    message: str
    container: str
    at: float
    times: int = 1
    last_at: float = 0.0


class RunnerState(NamedTuple):
    """The whole. ``final``: nothing of the pod runs any more and nothing will.

    ``reason`` and ``message`` are the pod's own (``DeadlineExceeded``), empty when the containers' say it all.
    ``terminating``: TERM or the time limit's warning was seen; nothing is restarted. ``edition``: what it has taken up
    of the pod's edits; None from a runner that takes up none, for it is of an older version.
    """

    format: int
    version: int
    job_id: str
    restart: int
    node: str
    pod_ips: Tuple[str, ...]
    host_ips: Tuple[str, ...]
    started_at: float
    finished_at: float
    final: bool
    terminating: bool
    reason: str
    message: str
    containers: Tuple[ContainerState, ...]
    events: Tuple[Event, ...]
    edition: Optional[Edition] = None


def next_run(state: ContainerState) -> Tuple[Optional[Terminated], int]:
    """Return ``last`` and ``restart_count`` of the run that comes, or has begun and got no farther than waiting."""
    if isinstance(state.state, Terminated):
        return state.state, state.restart_count + 1
    backing_off = isinstance(state.state, Waiting) and state.state.reason == "CrashLoopBackOff"
    return state.last, state.restart_count + (1 if backing_off else 0)


def last_restart(state: ContainerState) -> int:
    """Return which restart ``last`` was: during a back-off the count is still that of the run that ended."""
    backing_off = isinstance(state.state, Waiting) and state.state.reason == "CrashLoopBackOff"
    return state.restart_count if backing_off else max(0, state.restart_count - 1)


_KINDS = {"waiting": Waiting, "running": Running, "terminated": Terminated}  # type: Dict[str, Any]


def _condition_to_json(condition: Condition) -> Dict[str, Any]:
    return {type(condition).__name__.lower(): dict(condition._asdict())}


def _checked(kind: Any, fields: Dict[str, Any]) -> Any:
    """Make one of our tuples of what a job directory says, which the pod's own job can write. ValueError, TypeError."""
    made = kind(**fields)
    for name, annotation in kind.__annotations__.items():
        value = getattr(made, name)
        if annotation is float:
            good = isinstance(value, (int, float)) and 0 <= value < _LAST_TIME  # NaN is neither
        elif annotation is int:
            good = isinstance(value, int) and abs(value) < _WHOLE_LIMIT
        else:
            good = annotation not in (str, bool) or isinstance(value, annotation)
        if not good or (isinstance(value, bool) and annotation is not bool):
            raise ValueError("%s.%s can't be %.80r" % (kind.__name__, name, value))
    return made


def _texts(values: Any) -> Tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("not a list of texts: %.80r" % (values,))
    return tuple(values)


def _condition_from_json(data: Dict[str, Any]) -> Condition:
    ((kind, fields),) = data.items()
    condition = _checked(_KINDS[kind], fields)  # type: Condition
    return condition


def state_to_json(state: RunnerState) -> Dict[str, Any]:
    """Turn a state into what ``json.dumps`` takes."""
    data = dict(state._asdict())  # type: Dict[str, Any]
    data["containers"] = [
        dict(
            container._asdict(),
            state=_condition_to_json(container.state),
            last=None if container.last is None else dict(container.last._asdict()),
        )
        for container in state.containers
    ]
    data["events"] = [dict(event._asdict()) for event in state.events]
    data["edition"] = None if state.edition is None else dict(state.edition._asdict())
    return data


def state_from_json(data: Dict[str, Any]) -> RunnerState:
    """Read a state. Raises ValueError, TypeError, KeyError or AttributeError for anything that no runner writes."""
    if data.get("format") != FORMAT:
        raise ValueError("runner state of format %.80r; format %d is known" % (data.get("format"), FORMAT))
    fields = dict(data)
    fields["pod_ips"] = _texts(data["pod_ips"])
    fields["host_ips"] = _texts(data["host_ips"])
    fields["containers"] = tuple(
        _checked(
            ContainerState,
            dict(
                item,
                state=_condition_from_json(item["state"]),
                last=None if item["last"] is None else _checked(Terminated, item["last"]),
            ),
        )
        for item in data["containers"]
    )
    fields["events"] = tuple(_checked(Event, item) for item in data["events"])
    edition = data.get("edition")
    if edition is not None:
        images = tuple((name, image) for name, image in map(_texts, edition["images"]))
        fields["edition"] = _checked(Edition, dict(edition, images=images))
    state = _checked(RunnerState, fields)  # type: RunnerState
    return state
