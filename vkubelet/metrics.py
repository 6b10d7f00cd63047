"""What the agent counts of itself, for Prometheus; documented in docs/metrics.md. Served by ``api.metrics``.

Names begin with ``slurmlet_``; labels take few values whatever the pods do. What is counted here is counted where it
happens; what can be looked at (pods by phase) is looked at when somebody asks.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge, Histogram

from slurm_plugin.contract import PodReport
from slurm_plugin.errors import (
    SlurmletError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TranslationError,
    TransportError,
)

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)

QUEUE_DEPTH = Gauge("slurmlet_workqueue_depth", "Keys that wait for a worker.", ["queue"])
QUEUE_RETRIES = Counter("slurmlet_workqueue_retries_total", "Work that failed and is tried again.", ["queue"])
QUEUE_SECONDS = Histogram(
    "slurmlet_workqueue_work_duration_seconds", "How long a worker worked on a key.", ["queue"], buckets=_SECONDS
)

SUBMISSIONS = Counter(
    "slurmlet_submissions_total",
    "Submissions by outcome: accepted, refused (by us), rejected (by Slurm), unavailable, unknown, failed.",
    ["outcome"],
)
SUBMISSION_SECONDS = Histogram(
    "slurmlet_submission_duration_seconds", "From staging a pod's job to Slurm's answer.", buckets=_SECONDS
)
ACCEPTED_SECONDS = Histogram(
    "slurmlet_pod_accepted_duration_seconds",
    "From the agent's first sight of a pod to its job in Slurm's queue.",
    buckets=(*_SECONDS, 300.0, 1000.0),
)

REPORT_LAG = Histogram(
    "slurmlet_report_lag_seconds",
    "From an event on the compute node to the agent's knowledge of it, by both clocks.",
    buckets=_SECONDS,
)
SLURM_REACHABLE = Gauge("slurmlet_slurm_reachable", "1 if Slurm and the job directories answer.", ["node"])

API_REQUESTS = Counter(
    "slurmlet_api_requests_total", "Requests to the API server; code is none without an answer.",
    ["verb", "resource", "code"],
)  # fmt: skip
API_SECONDS = Histogram(
    "slurmlet_api_request_duration_seconds", "Until the head of the API server's answer.", ["verb"], buckets=_SECONDS
)

KUBELET_REQUESTS = Counter(
    "slurmlet_kubelet_requests_total", "Requests to the kubelet's port; code is none if the client went away.",
    ["endpoint", "code"],
)  # fmt: skip
KUBELET_REQUESTS_IN_FLIGHT = Gauge(
    "slurmlet_kubelet_requests_in_flight", "Requests of the kubelet's port under way: followed logs, exec, …",
    ["endpoint"],
)  # fmt: skip
KUBELET_STREAMS = Counter(
    "slurmlet_kubelet_streams_total",
    "Requests to the kubelet's port that became streams; transport is spdy or websocket, protocol what was agreed on.",
    ["endpoint", "transport", "protocol"],
)
CERTIFICATE_EXPIRY = Gauge(
    "slurmlet_serving_certificate_expiry_timestamp_seconds", "When the certificate in use expires, since the epoch.",
    ["port"],
)  # fmt: skip

_OUTCOMES: tuple[tuple[type[SlurmletError], str], ...] = (
    (TranslationError, "refused"),
    (SubmissionRejectedError, "rejected"),
    (SlurmUnavailableError, "unavailable"),
    (TransportError, "unknown"),
    (SlurmletError, "failed"),
)


@contextmanager
def counted_submission(seen_at: float) -> Iterator[None]:
    """Count one submission by its outcome. ``seen_at``: when the pod was first seen, by the monotonic clock."""
    begun, outcome = time.monotonic(), "accepted"
    try:
        yield
        ACCEPTED_SECONDS.observe(time.monotonic() - seen_at)
    except SlurmletError as error:
        outcome = next(word for kind, word in _OUTCOMES if isinstance(error, kind))
        raise
    finally:
        SUBMISSIONS.labels(outcome).inc()
        SUBMISSION_SECONDS.observe(time.monotonic() - begun)


def observe_report(old: PodReport | None, new: PodReport, now: float) -> None:
    """Measure how late the newest event of a report is, if it is news."""
    events = new.runner.events if new.runner is not None else ()
    known = old.runner.events if old is not None and old.runner is not None else ()
    newest = [(event.sequence, event.at) for event in events[-1:]]  # a count is told late on purpose
    if old is not None and newest and newest != [(event.sequence, event.at) for event in known[-1:]]:
        REPORT_LAG.observe(max(0.0, now - events[-1].at))


class CountedRequest:
    """One request to the API server, counted once: when the head of its answer is there, or when there is none."""

    def __init__(self, verb: str, path: str) -> None:
        self._verb = verb
        self._resource = resource_of(path)
        self._begun = time.monotonic()
        self._counted = False

    def answered(self, code: str) -> None:
        """Count it under this code; a second call is a no-op."""
        if not self._counted:
            self._counted = True
            API_REQUESTS.labels(self._verb, self._resource, code).inc()
            API_SECONDS.labels(self._verb).observe(time.monotonic() - self._begun)


def resource_of(path: str) -> str:
    """Return the resource (``pods``, ``pods/status``) that a path of the API server names."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if parts[:1] == ["namespaces"] and len(parts) > 2:
        parts = parts[2:]
    return "/".join([*parts[:1], *parts[2:3]]) or "other"
