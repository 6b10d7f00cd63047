"""The pod's state as the runner knows it, kept while it changes: containers, events, and the pod's own reason."""

import time
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

from . import plan
from .claim import Run
from .happenings import Happenings
from .state import FORMAT, ContainerState, RunnerState, Running, Terminated, Waiting, next_run

REQUEUED = "SlurmRequeued"


class Facts(NamedTuple):
    """What does not change during a run."""

    run: Run
    node: str
    pod_ips: Tuple[str, ...]
    host_ips: Tuple[str, ...]


def first_states(pod: plan.Plan, before: Optional[RunnerState]) -> Dict[str, ContainerState]:
    """Return how every container begins: waiting; after a requeue, with what it was before as its last state."""
    initializing = any(container.kind != plan.APP for container in pod.containers)
    reason = "PodInitializing" if initializing else "ContainerCreating"
    old = {} if before is None else {state.name: state for state in before.containers}
    states = {}
    for container in pod.containers:
        state = ContainerState(container.name, container.kind, Waiting(reason, ""), None, 0, False, False, "")
        previous = old.get(container.name)
        if previous is not None:
            state = _requeued(state, previous)
        states[container.name] = state
    return states


def _requeued(state: ContainerState, previous: ContainerState) -> ContainerState:
    last, count = previous.last, previous.restart_count
    if isinstance(previous.state, Running):
        message = "Slurm requeued the job"
        last = Terminated(137, 9, REQUEUED, message, previous.state.started_at, time.time())
        count += 1
    elif isinstance(previous.state, Terminated):
        last, count = previous.state, count + 1
    elif last is not None and previous.state.reason == "CrashLoopBackOff":
        count += 1
    return state._replace(last=last, restart_count=count)


class Book:
    """The one place where the state is kept. ``on_change`` is called after every change."""

    def __init__(self, pod: plan.Plan, facts: Facts, before: Optional[RunnerState] = None) -> None:
        self.facts = facts
        self.on_change: Callable[[], None] = lambda: None
        self.terminating = False
        self.reason = ""
        self.message = ""
        self.final = False
        self.edition = plan.edition_of(pod)
        self._started_at = time.time()
        self._finished_at = 0.0
        self._states = first_states(pod, before)
        self._happenings = Happenings()

    def get(self, name: str) -> ContainerState:
        """Return a container's state."""
        return self._states[name]

    def set(self, name: str, **changes: Any) -> None:
        """Change a container's state."""
        changed = self._states[name]._replace(**changes)
        if changed != self._states[name]:
            self._states[name] = changed
            self.on_change()

    def wait(self, name: str, reason: str, message: str) -> None:
        """Note that a container's next run can't begin yet, and why. What it was before is its last state."""
        last, count = next_run(self._states[name])
        self.set(name, state=Waiting(reason, message), last=last, restart_count=count, started=False, ready=False)

    def add(self, container: plan.Container) -> None:
        """Take in a container that was not in the plan."""
        waiting = Waiting("ContainerCreating", "")
        self._states[container.name] = ContainerState(
            container.name, container.kind, waiting, None, 0, False, False, ""
        )  # fmt: skip
        self.on_change()

    def event(self, reason: str, message: str, container: str = "", *, warning: bool = False) -> None:
        """Tell the user something; the same again and again is counted, and the count told now and then."""
        if self._happenings.add("Warning" if warning else "Normal", reason, message, container, time.time()):
            self.on_change()

    def take_up(self, edition: plan.Edition) -> None:
        """Note what was edited of the pod."""
        if edition != self.edition:
            self.edition = edition
            self.on_change()

    def terminate(self, reason: str, message: str) -> None:
        """Note that the pod is being ended; the first reason stands."""
        if not self.terminating:
            self.terminating = True
            self.reason, self.message = reason, message
            self.on_change()

    def finish(self) -> None:
        """Note that nothing runs any more: what still did was killed."""
        now = time.time()
        for name, state in self._states.items():
            if isinstance(state.state, Running):
                ending = Terminated(137, 9, "Error", self.message, state.state.started_at, now)
                self._states[name] = state._replace(state=ending, started=False, ready=False)
        self.final = True
        self._finished_at = time.time()

    def snapshot(self, version: int) -> RunnerState:
        """Return the whole."""
        return RunnerState(
            format=FORMAT,
            version=version,
            job_id=self.facts.run.job_id,
            restart=self.facts.run.restart,
            node=self.facts.node,
            pod_ips=self.facts.pod_ips,
            host_ips=self.facts.host_ips,
            started_at=self._started_at,
            finished_at=self._finished_at,
            final=self.final,
            terminating=self.terminating,
            reason=self.reason,
            message=self.message,
            containers=tuple(self._states.values()),
            events=tuple(self._happenings.events),
            edition=self.edition,
        )
