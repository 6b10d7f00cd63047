"""A small reference model of a pod's life: what a random pod does, and how it must end. Pure.

Every container keeps a count of its runs in a file and behaves by it, so that what each run does is known beforehand.
The rules are the kubelet's (``pkg/kubelet/kuberuntime``, ``kubelet_pods.go``); nothing here is taken from the runner.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import strategies as st

INIT, SIDECAR, APP = "init", "sidecar", "app"
TERM_KILLED, KILLED = 143, 137


@dataclass(frozen=True)
class Run:
    """One run: it works so long, then ends with that code; a sick one stays until its liveness probe has it ended."""

    seconds: float
    code: int
    sick: bool = False


@dataclass(frozen=True)
class Container:
    """``runs``, and then it stays; told to end it ends with ``at_term``, or not at all (None)."""

    name: str
    kind: str
    runs: tuple[Run, ...]
    at_term: int | None

    def end_of(self, number: int) -> int | None:
        """The exit code of a run that nothing from outside ends; None if it stays."""
        if number >= len(self.runs):
            return None
        run = self.runs[number]
        return run.code if not run.sick else KILLED if self.at_term is None else self.at_term

    def over_after(self, number: int, policy: str) -> bool:
        """Whether it does not run again after a run. One that a probe ended does, whatever its code, unless never."""
        sick = number < len(self.runs) and self.runs[number].sick
        return policy == "Never" or (policy == "OnFailure" and self.end_of(number) == 0 and not sick)

    def script(self, directory: str) -> str:
        """What its shell does, with a file per container in a directory that the containers share."""
        mine = f"{directory}/{self.name}"
        trap = "trap '' TERM" if self.at_term is None else f"trap 'exit {self.at_term}' TERM"
        stay = "while :; do sleep 0.2; done"
        cases = [
            f"{number}) sleep {run.seconds}; " + (f"touch {mine}.sick; {stay}" if run.sick else f"exit {run.code}")
            for number, run in enumerate(self.runs)
        ]
        lines = (
            f"{trap}; n=0; read n < {mine} 2>/dev/null",
            f"echo $((n + 1)) > {mine}",
            f"echo start {self.name} >> {directory}/order",
            f"case $n in {' ;; '.join([*cases, f'*) {stay}'])} ;; esac",
        )
        return "; ".join(lines)

    @property
    def probed(self) -> bool:
        """Whether it has a liveness probe."""
        return any(run.sick for run in self.runs)

    def healthy(self, directory: str) -> str:
        """What its liveness probe runs. It takes the ``.sick`` file away: the next run may be probed before it has begun."""
        return f"! rm {directory}/{self.name}.sick 2>/dev/null"


@dataclass(frozen=True)
class PodSpec:
    """``delete_after``: so many seconds after it was seen first, None for a pod that is left alone."""

    policy: str
    containers: tuple[Container, ...]
    delete_after: float | None

    def kind(self, *kinds: str) -> tuple[Container, ...]:
        return tuple(each for each in self.containers if each.kind in kinds)

    def policy_of(self, container: Container) -> str:
        if container.kind == SIDECAR:
            return "Always"
        return "OnFailure" if container.kind == INIT and self.policy == "Always" else self.policy


@dataclass(frozen=True)
class End:
    """How a container ended: of which run, with which code. ``code`` None: it never ran."""

    restarts: int
    code: int | None


def last_run(container: Container, policy: str) -> End | None:
    """Return how a container ends that is left alone; None if it never does."""
    for number in range(len(container.runs) + 1):
        code = container.end_of(number)
        if code is None:
            return None
        if container.over_after(number, policy):
            return End(number, code)
    return None


def ends_alone(pod: PodSpec) -> bool:
    """Whether the pod ends without being deleted."""
    for each in pod.kind(INIT):
        end = last_run(each, pod.policy_of(each))
        if end is None:
            return False
        if end.code != 0:
            return True
    return all(last_run(each, pod.policy_of(each)) is not None for each in pod.kind(APP))


def predicted(pod: PodSpec) -> dict[str, End]:
    """Return how the init and app containers of a pod that is left alone end (a sidecar's end depends on the moment)."""
    ends: dict[str, End] = {}
    failed = False
    for each in pod.kind(INIT):
        end = None if failed else last_run(each, pod.policy_of(each))
        ends[each.name] = end or End(0, None)
        failed = failed or end is None or end.code != 0
    for each in pod.kind(APP):
        ends[each.name] = (None if failed else last_run(each, pod.policy_of(each))) or End(0, None)
    return ends


def possible(pod: PodSpec, container: Container) -> set[End]:
    """Return every end that a container can have if the pod is ended from outside at whatever moment."""
    ends = {End(0, None)}
    for number in range(len(container.runs) + 2):
        code = container.end_of(min(number, len(container.runs)))
        told = KILLED if container.at_term is None else container.at_term
        # Ended before it has set its trap, it ends as any shell does.
        ends |= {End(number, told), End(number, TERM_KILLED), End(number, KILLED)}
        if code is not None:
            ends.add(End(number, code))
        if container.over_after(number, pod.policy_of(container)):
            break
    return ends


def phase(pod: PodSpec, ends: dict[str, End]) -> str:
    """Return the phase of a pod that is over."""
    return "Succeeded" if all(ends[each.name].code == 0 for each in pod.kind(APP)) else "Failed"


def exit_code(pod: PodSpec, ends: dict[str, End]) -> int:
    """Return the job's exit code, if the pod was not ended from outside: an app's first, else an init container's."""
    codes = [ends[each.name].code for each in (*pod.kind(APP), *pod.kind(INIT))]
    return next((code for code in codes if code), 0)


def wrong_order(pod: PodSpec, started: list[str], *, by: str) -> Iterator[str]:
    """Yield what is wrong with the order in which containers were started (their names, each run).

    ``by``: who wrote it, the ``runner`` or the ``containers``. A sidecar need not have come to write before what follows
    it is started, and does not come to it if it is ended before.
    """
    first = {name: started.index(name) for name in started}
    for before, after in zip(pod.containers, pod.containers[1:], strict=False):
        if before.kind == APP or (before.kind == SIDECAR and by == "containers"):
            continue
        if after.name in first and before.name not in first:
            yield f"{after.name} was started, {before.name} before it was not"
        elif after.name in first and first[after.name] < first[before.name]:
            yield f"{after.name} was started before {before.name}"
    inits = {each.name for each in pod.kind(INIT)}
    apps = [first[each.name] for each in pod.kind(APP) if each.name in first]
    if apps and any(name in inits for name in started[min(apps) :]):
        yield "an init container was started after an app"


def _containers(kind: str, policy: str, *, restarts: int, probes: bool) -> st.SearchStrategy[list[Container]]:
    seconds = st.sampled_from([0, 0, 0.1, 0.3])
    runs = st.builds(Run, seconds, st.sampled_from([0, 0, 0, 1, 3, 255]))
    if probes and kind != INIT:
        runs = st.one_of(runs, runs, runs, st.builds(Run, seconds, st.just(0), st.just(value=True)))
    most = 1 if policy == "Never" and kind != SIDECAR else restarts + 1
    last = st.builds(Run, seconds, st.just(0))

    def named(index: int) -> st.SearchStrategy[Container]:
        several = st.lists(runs, max_size=most - 1).map(tuple)
        # What is to end must end well at last, where it is started again after every failure.
        ended = (
            several
            if kind == SIDECAR
            else st.tuples(several, runs if policy == "Never" else last).map(lambda pair: (*pair[0], pair[1]))
        )
        return st.builds(Container, st.just(f"{kind}{index}"), st.just(kind), ended, st.sampled_from([0, 0, 5, None]))

    low = 1 if kind == APP else 0
    return st.integers(low, 2).flatmap(lambda count: st.tuples(*map(named, range(count))).map(list))


def pod_specs(*, restarts: int = 2, probes: bool = True, deletions: bool = True) -> st.SearchStrategy[PodSpec]:
    """Return random pods; one that would not end by itself is deleted at some moment, others are sometimes."""

    def of(policy: str) -> st.SearchStrategy[PodSpec]:
        kinds = {
            kind: _containers(kind, "OnFailure" if policy == "Always" else policy, restarts=restarts, probes=probes)
            for kind in (INIT, SIDECAR, APP)
        }
        moments = st.one_of(st.none(), st.none(), st.floats(0, 1.5)) if deletions else st.none()
        parts = st.tuples(st.tuples(kinds[INIT], kinds[SIDECAR]).flatmap(_mixed), kinds[APP])

        def made(pair: tuple[list[Container], list[Container]], moment: float | None) -> PodSpec:
            pod = PodSpec(policy, (*pair[0], *pair[1]), moment)
            return pod if ends_alone(pod) or moment is not None else PodSpec(policy, pod.containers, 0.7)

        return st.builds(made, parts, moments)

    policies = ["Never", "OnFailure", "Always"] if deletions else ["Never", "OnFailure"]
    return st.sampled_from(policies).flatmap(of)


def _mixed(pair: tuple[list[Container], list[Container]]) -> st.SearchStrategy[list[Container]]:
    return st.permutations([*pair[0], *pair[1]])
