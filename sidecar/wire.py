"""The sidecar's API, version 1: its paths, and what goes through them beside the contract's own data. Pure."""

from dataclasses import dataclass, field

from slurm_plugin.contract import LogOptions, PodContent, PodIdentity, Report
from slurm_plugin.pod import Pod

VERSION = "v1"
CLUSTER = f"/{VERSION}/cluster"
IDENTITIES = f"/{VERSION}/identities"
PODS = f"/{VERSION}/pods"
POD = f"{PODS}/{{uid}}"
TERMINATE = f"{POD}/terminate"
CONTENT = f"{POD}/content"
CONTAINERS = f"{POD}/containers"
LOGS = f"{POD}/containers/{{container}}/log"
STREAM = f"{POD}/stream"
REPORTS = f"/{VERSION}/reports"
USAGE = f"/{VERSION}/usage"

MOST_BYTES = 64 * 2**20
"""Of one request: Secrets and ConfigMaps have at most 1 MiB each."""
PULSE_SECONDS = 15.0
"""An idle stream of reports holds an empty line this often: who hears nothing for longer has lost the connection."""
UID = r"[A-Za-z0-9][A-Za-z0-9.-]{0,127}"


@dataclass(frozen=True, slots=True)
class Introduce:
    """The pods that there are: whose each is, the sidecar's policy says."""

    pods: tuple[PodIdentity, ...]


@dataclass(frozen=True, slots=True)
class Submit:
    """A pod to run."""

    pod: Pod
    content: PodContent


@dataclass(frozen=True, slots=True)
class Submitted:
    """The job that it has."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A pod that was edited, whole."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class Extend:
    """A pod that was given ephemeral containers, and what these refer to."""

    pod: Pod
    content: PodContent


@dataclass(frozen=True, slots=True)
class Terminate:
    """The end of a pod."""

    grace_seconds: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the stream of reports: ``epoch`` and ``sequence`` are what to come back with."""

    epoch: str
    sequence: int
    report: Report


@dataclass(frozen=True, slots=True)
class LogRequest:
    """What is wanted of a log."""

    options: LogOptions = field(default_factory=LogOptions)


@dataclass(frozen=True, slots=True)
class Open:
    """The first message of a stream into a pod. ``kind``: ``exec``, ``attach`` or ``connect``."""

    kind: str
    container: str = ""
    argv: tuple[str, ...] = ()
    stdin: bool = False
    tty: bool = False
    port: int = 0


# Which of a stream's two halves a frame is of: what goes in and comes out; standard error.
DATA, ERRORS = 0, 1
