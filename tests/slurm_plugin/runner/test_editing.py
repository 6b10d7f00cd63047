"""A live pod takes up its edited images and deadline: a real runner that is told to read its plan again."""

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slurm_plugin.errors import HostError
from slurm_plugin.runner import plan
from slurm_plugin.runner.backoff import Timings
from slurm_plugin.runner.state import RunnerState, Running, Terminated, state_from_json, state_to_json

from .jobs import Job, pod, shell
from .test_enter import FOREVER, entered, running


def edit(job: Job, name: str, image: str = "busybox", **changes: Any) -> None:
    """Replace the plan as the provider does."""
    path = Path(job.directory.plan)
    what = plan.plan_from_json(json.loads(path.read_text()))
    now = plan.Image(image, "docker://example.com/" + image, "IfNotPresent", insecure=False)
    containers = tuple(each._replace(image=now) if each.name == name else each for each in what.containers)
    path.write_text(json.dumps(plan.to_json(what._replace(containers=containers, **changes))))


async def admit(job: Job) -> None:
    async with entered(job) as connection:
        await connection.call({"op": "admit"}, timeout=30)


async def test_a_container_whose_image_was_edited_is_restarted_with_it_whatever_its_restart_policy(
    job: Callable[..., Job],
) -> None:
    side = shell("side", FOREVER, kind=plan.SIDECAR, restart_policy="Always")
    what = running(job, side, shell("a", FOREVER), shell("b", FOREVER))
    edit(what, "a", "new:2")
    for _ in range(2):
        await admit(what)
    await asyncio.to_thread(what.wait_until, lambda j: j.container("a").restart_count == 1)
    await asyncio.to_thread(what.wait_until, lambda j: isinstance(j.container("a").state, Running))
    a = what.container("a")
    assert (a.image, a.last is not None) == ("new:2", True)
    words = [event.message for event in what.state().events if event.reason == "Killing"]
    assert words == ["Container a definition changed, will be restarted"]
    edit(what, "side", "newer:3")
    await admit(what)
    await asyncio.to_thread(what.wait_until, lambda j: j.container("side").restart_count == 1)
    await asyncio.to_thread(what.wait_until, lambda j: isinstance(j.container("side").state, Running))
    assert what.container("b").restart_count == 0
    edition = what.state().edition
    assert edition is not None
    assert dict(edition.images) == {"side": "newer:3", "a": "new:2", "b": "busybox"}
    what.processes[0].send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(what.processes[0].wait, 30) == 143
    assert isinstance(what.container("a").state, Terminated)


async def test_an_edited_image_ends_a_back_off_and_begins_another(job: Callable[..., Job]) -> None:
    what = job(pod(shell("a", FOREVER), shell("b", "exit 3", restart_policy="Always")))
    what.start(timings=Timings(base=600.0, limit=600.0, reset=6000.0))
    await asyncio.to_thread(what.wait_until, lambda j: "BackOff" in j.reasons("b"))
    assert what.container("b").restart_count == 1
    edit(what, "b", "new:2")
    await admit(what)
    await asyncio.to_thread(what.wait_until, lambda j: j.container("b").restart_count == 2)
    await asyncio.to_thread(
        what.wait_until, lambda j: 2 in [e.times for e in j.state().events if e.reason == "BackOff"]
    )
    assert what.container("b").image == "new:2"


async def test_a_container_being_restarted_for_its_image_when_the_pod_is_ended_has_ended(
    job: Callable[..., Job], tmp_path: Path
) -> None:
    over = tmp_path / "over"
    slow = f"trap 'until test -e {over}; do sleep 0.05; done; exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    what = running(job, shell("a", slow, restart_policy="Always"), grace_seconds=60)
    edit(what, "a", "new:2")
    await admit(what)
    what.processes[0].send_signal(signal.SIGTERM)
    await asyncio.to_thread(what.wait_until, lambda j: j.state().terminating)
    over.touch()
    assert await asyncio.to_thread(what.processes[0].wait, 30) == 4
    ended = what.container("a")
    assert isinstance(ended.state, Terminated)
    assert (ended.state.exit_code, ended.restart_count) == (4, 0)


async def test_a_deadline_that_was_set_on_the_running_pod_counts_from_its_beginning(job: Callable[..., Job]) -> None:
    what = running(job, shell("a", FOREVER))
    edit(what, "", deadline_seconds=3600)
    await admit(what)
    assert not what.state().terminating
    edit(what, "", deadline_seconds=1)
    await admit(what)
    assert await asyncio.to_thread(what.processes[0].wait, 30) != 0
    assert what.state().reason == "DeadlineExceeded"


def spoil(job: Job) -> None:
    Path(job.directory.plan).write_text("{")


async def test_a_plan_that_can_not_be_read_again_changes_nothing(job: Callable[..., Job]) -> None:
    what = running(job, shell("a", FOREVER))
    spoil(what)
    with pytest.raises(HostError):
        await admit(what)
    assert isinstance(what.container("a").state, Running)


@pytest.mark.parametrize(
    "forged",
    [7, "x", [], {}, {"images": {"a": "b"}, "deadline_seconds": 0}, {"images": [["a"]], "deadline_seconds": 0},
     {"images": [["a", 1]], "deadline_seconds": 0}, {"images": [], "deadline_seconds": "1"},
     {"images": [], "deadline_seconds": 1 << 40}, {"images": [], "deadline_seconds": 0, "more": 1}],
)  # fmt: skip
def test_an_edition_that_no_runner_writes_is_refused(forged: object) -> None:
    state = RunnerState(1, 1, "7", 0, "cn1", (), (), 1.0, 0.0, False, False, "", "", (), ())
    edition = plan.edition_of(pod(shell("a", "true"), deadline_seconds=9))
    written = json.loads(json.dumps(state_to_json(state._replace(edition=edition))))
    assert state_from_json(written).edition == edition
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        state_from_json(dict(written, edition=forged))
