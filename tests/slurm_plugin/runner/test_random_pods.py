"""Random pods, run by real runners, end as a small reference model of the rules says."""

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from slurm_plugin.podstatus import phase_of
from slurm_plugin.runner import plan
from slurm_plugin.runner.state import ContainerState, Terminated

from .jobs import Job, exec_action, pod, probe, shell
from .model import (
    APP,
    INIT,
    SIDECAR,
    Container,
    End,
    PodSpec,
    exit_code,
    phase,
    pod_specs,
    possible,
    predicted,
    wrong_order,
)

KINDS = {INIT: plan.INIT, SIDECAR: plan.SIDECAR, APP: plan.APP}


def planned(spec: PodSpec, directory: Path) -> plan.Plan:
    def one(container: Container) -> plan.Container:
        healthy = exec_action("/bin/sh", "-c", container.healthy(str(directory)))
        return shell(
            container.name,
            container.script(str(directory)),
            kind=KINDS[container.kind],
            restart_policy=spec.policy_of(container),
            liveness_probe=probe(healthy, failure_threshold=1, timeout=20) if container.probed else None,
        )

    return pod(*map(one, spec.containers), restart_policy=spec.policy, grace_seconds=2)


def ended(state: ContainerState) -> End:
    now = state.state
    if isinstance(now, Terminated):
        return End(state.restart_count, now.exit_code)
    return End(state.restart_count, None)


def judge(spec: PodSpec, job: Job, code: int) -> list[str]:
    """Return what did not go as the model says."""
    state = job.state()
    ends = {each.name: ended(each) for each in state.containers}
    order = Path(job.directory.path).parent / "files" / "order"
    started = [line.split()[1] for line in order.read_text().splitlines()] if order.exists() else []
    told = [event.container for event in state.events if event.reason == "Started"]
    wrong = [*wrong_order(spec, started, by="containers"), *wrong_order(spec, told, by="runner")]
    if not state.final:
        wrong.append("its last state is not final")
    if phase_of(state.containers, over=True) != phase(spec, ends):
        wrong.append(f"its phase is {phase_of(state.containers, over=True)}")
    exact = {} if state.terminating else predicted(spec)
    for each in spec.containers:
        if each.name in exact and ends[each.name] != exact[each.name]:
            wrong.append(f"{each.name}: {ends[each.name]} in place of {exact[each.name]}")
        elif ends[each.name] not in possible(spec, each):
            wrong.append(f"{each.name}: {ends[each.name]} is impossible")
    if not state.terminating and code != exit_code(spec, ends):
        wrong.append(f"exit code {code} in place of {exit_code(spec, ends)}")
    return wrong


def run_together(specs: list[PodSpec], directory: Path) -> None:
    jobs = []
    for number, spec in enumerate(specs):
        files = directory / str(number) / "files"
        files.mkdir(parents=True)
        jobs.append(Job(directory / str(number) / "job", planned(spec, files)))
    processes = [job.start(job_id=str(number)) for number, job in enumerate(jobs)]
    begun = time.monotonic()
    waiting = sorted((spec.delete_after, number) for number, spec in enumerate(specs) if spec.delete_after is not None)
    try:
        for moment, number in waiting:
            time.sleep(max(0.0, begun + moment - time.monotonic()))
            jobs[number].wait_until(lambda job: job.state().version > 0, seconds=60)
            processes[number].send_signal(signal.SIGTERM)
        for spec, job, process in zip(specs, jobs, processes, strict=True):
            output, _ = process.communicate(timeout=120)
            assert "Traceback" not in output, output
            wrong = judge(spec, job, process.returncode)
            assert not wrong, f"{wrong}\n{spec}\n{job.state()}\n{output}"
    finally:
        for job in jobs:
            job.close()


def drawn(*, rounds: int, together: int) -> list[list[PodSpec]]:
    """Return random pods, so many at once; always the same ones unless SLURMLET_RANDOM_PODS is set."""
    found: list[list[PodSpec]] = []

    @settings(
        max_examples=rounds,
        derandomize=not os.environ.get("SLURMLET_RANDOM_PODS"),
        phases=[Phase.generate],
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(pod_specs(), min_size=together, max_size=together))
    def draw(specs: list[PodSpec]) -> None:
        found.append(specs)

    draw()
    return found


def try_pods(*, rounds: int, together: int) -> None:
    # Drawn first, then run: Hypothesis would run a pod that fails once more, and hide what was wrong.
    for specs in drawn(rounds=rounds, together=together):
        directory = Path(tempfile.mkdtemp(prefix="slurmlet-random-"))
        try:
            run_together(specs, directory)
        finally:
            shutil.rmtree(directory)


@pytest.mark.slow
def test_random_pods_end_as_the_model_says() -> None:
    try_pods(rounds=2, together=6)


@pytest.mark.e2e
@pytest.mark.timeout(900)
def test_two_hundred_random_pods_end_as_the_model_says() -> None:
    try_pods(rounds=20, together=10)
