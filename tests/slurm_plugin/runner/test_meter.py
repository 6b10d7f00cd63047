"""What a pod's containers use: measured on real runs, and read back from a file that anybody might have written."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm_plugin.runner.meter import _Counter, _notable
from slurm_plugin.runner.proctree import families
from slurm_plugin.runner.usage import ContainerUsed, ProbeCount, Usage, usage_from_json, usage_to_json

from .jobs import Job, exec_action, pod, probe, shell

USAGE = Usage("42", 0, 100.0, (ContainerUsed("main", 90.0, 5_000_000_000, 1 << 20),), (ProbeCount("main", "Liveness", "failed", 3),))  # fmt: skip


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def make(*containers: object) -> Job:
        jobs.append(Job(tmp_path / "pods" / "uid", pod(*containers)))  # type: ignore[arg-type]
        return jobs[-1]

    yield make
    for each in jobs:
        each.close()


def used(job: Job) -> Usage:
    return usage_from_json(json.loads(Path(job.directory.usage).read_text()))


def test_running_containers_are_measured_with_their_children_and_their_probes(job: Callable[..., Job]) -> None:
    # The shell's child has used its time and ended before anybody looks.
    busy = shell("busy", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; exec sleep 120")
    idle = shell("idle", "exec sleep 120", liveness_probe=probe(exec_action("true"), timeout=60))
    made = job(busy, idle)
    made.start()

    def both(job: Job) -> bool:
        usage = used(job)
        cpu = {container.name: container.cpu_nanoseconds for container in usage.containers}
        return bool(usage.probes) and len(cpu) == 2 and cpu["busy"] > cpu["idle"] > 0

    made.wait_until(both)
    usage = used(made)
    by_name = {container.name: container for container in usage.containers}
    assert all(container.working_set_bytes > 50_000 for container in usage.containers)
    state = made.container("busy").state
    assert by_name["busy"].started_at == state.started_at  # type: ignore[union-attr]
    assert (usage.job_id, usage.restart) == ("42", 0)
    (count,) = usage.probes
    assert (count.container, count.kind, count.result) == ("idle", "Liveness", "successful")


def test_cpu_never_falls_when_a_process_ends_unwaited_for() -> None:
    counter = _Counter()
    seen = [counter.total(ticks) // 10_000_000 for ticks in (0, 5, 50, 20, 25, 0)]
    assert seen == [1, 5, 50, 50, 55, 55]


def test_only_news_is_written_but_at_least_once_a_minute() -> None:
    (container,) = USAGE.containers

    def later(seconds: float, **changes: int) -> bool:
        return _notable(USAGE, USAGE._replace(time=100.0 + seconds, containers=(container._replace(**changes),)))

    assert not _notable(None, USAGE._replace(containers=()))
    assert _notable(None, USAGE)
    assert not later(10)
    assert not later(10, cpu_nanoseconds=5_100_000_000)
    assert later(10, cpu_nanoseconds=6_000_000_000)
    assert later(10, working_set_bytes=1 << 21)
    assert later(60)
    assert _notable(USAGE, USAGE._replace(time=110.0, containers=()))


def test_families_are_seen_in_one_look(job: Callable[..., Job]) -> None:
    made = job(shell("main", "sleep 30 & sleep 30"))
    process = made.start()
    made.wait_until(lambda _job: len(families([process.pid])[process.pid]) == 4)
    assert families([]) == {}


def test_usage_is_read_as_it_was_written() -> None:
    assert usage_from_json(json.loads(json.dumps(usage_to_json(USAGE)))) == USAGE


@pytest.mark.parametrize(
    "change",
    [
        {"job_id": 7}, {"job_id": "7" * 300}, {"restart": -1}, {"time": "now"}, {"time": float("nan")}, {"containers": {}}, {"containers": [1]},
        {"containers": [{"name": "a", "started_at": 1.0, "cpu_nanoseconds": 1 << 70, "working_set_bytes": 1}]},
        {"containers": [{"name": "a", "started_at": 1.0, "cpu_nanoseconds": True, "working_set_bytes": 1}]},
        {"probes": [{"container": "a", "kind": "Other", "result": "failed", "total": 1}]},
        {"probes": [{}]}, {"probes": [None] * 2000},
    ],
)  # fmt: skip
def test_usage_that_no_runner_writes_is_refused(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        usage_from_json(usage_to_json(USAGE) | change)
