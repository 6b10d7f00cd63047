"""Edited pods: what their jobs have not taken up is given to them, once."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from slurm_plugin.contract import PodContent
from slurm_plugin.editing import wanted
from slurm_plugin.errors import HostError, PodNotFoundError, UnsupportedFieldError
from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from vkubelet.editing import Editing
from vkubelet.podevents import PodEvents
from vkubelet.podwork import Work

from .fakes import FakeProvider


def pod(image: str = "a:1", *, generation: int | None = 1, deadline: int | None = None) -> Pod:
    metadata = {"name": "p", "namespace": "default", "uid": "u", "generation": generation}
    containers = [{"name": "main", "image": image}]
    return Pod.model_validate(
        {"metadata": metadata, "spec": {"containers": containers, "activeDeadlineSeconds": deadline}}
    )


class Told:
    def __init__(self) -> None:
        self.words: list[str] = []

    def tell(self, _subject: Any, _kind: str, reason: str, message: str) -> None:
        self.words.append(f"{reason}: {message}")


class World:
    def __init__(self) -> None:
        self.provider = FakeProvider(clock=lambda: 1.0)
        self.told = Told()
        self.editing = Editing(self.provider, PodEvents(self.told, lambda: 1.0))  # type: ignore[arg-type]

    def submit(self, made: Pod) -> None:
        asyncio.run(self.provider.submit(made, PodContent()))
        self.editing.submitted(made)

    def see(self, made: Pod) -> float | None:
        return asyncio.run(self.editing.edit(made, Work(self.provider.jobs.get(PodUid("u")))))


@pytest.fixture
def world() -> World:
    return World()


def test_a_queued_pod_is_given_its_edit_once(world: World) -> None:
    world.submit(pod())
    assert world.see(pod()) is None
    for _ in range(2):
        assert world.see(pod("a:2", generation=2)) is None
    assert world.provider.edits == [wanted(pod("a:2"))]


@pytest.mark.parametrize(("generation", "looks"), [(1, 0), (2, 1), (None, 1)])
def test_a_new_agent_looks_at_a_queued_pod_that_may_have_been_edited(
    world: World, generation: int | None, looks: int
) -> None:
    asyncio.run(world.provider.submit(pod(), PodContent()))
    for _ in range(2):
        assert world.see(pod(generation=generation)) is None
    assert len(world.provider.edits) == looks


def test_a_running_pod_is_given_what_it_has_not_taken_up_also_by_a_new_agent(world: World) -> None:
    asyncio.run(world.provider.submit(pod(), PodContent()))
    world.provider.run(pod())
    assert world.see(pod()) is None
    late = pod(generation=2, deadline=60)
    for _ in range(2):
        assert world.see(late) is None
    assert world.provider.edits == [wanted(late)]
    world.provider.run(late)
    assert world.see(late) is None
    assert world.see(pod(generation=3)) is None
    assert len(world.provider.edits) == 2


def test_a_runner_that_began_before_the_edit_reached_it_is_told_again(world: World) -> None:
    world.submit(pod())
    world.see(pod("a:2", generation=2))
    world.provider.run(pod())
    world.see(pod("a:2", generation=2))
    assert len(world.provider.edits) == 2


def test_an_ended_pod_is_left_alone(world: World) -> None:
    world.submit(pod())
    world.provider.run(pod(), exit_code=0)
    assert world.see(pod("a:2", generation=2)) is None
    assert world.provider.edits == []


def test_what_can_not_be_taken_up_is_told_once(world: World) -> None:
    world.submit(pod())
    world.provider.refuse_edit = UnsupportedFieldError("spec", "no")
    for _ in range(2):
        assert world.see(pod("a:2", generation=2)) is None
    assert world.told.words == ["Failed: Error: spec: no"]


@pytest.mark.parametrize(("error", "told"), [(PodNotFoundError("starting"), 0), (HostError("away"), 1)])
def test_what_failed_is_tried_again(world: World, error: Exception, told: int) -> None:
    world.submit(pod())
    world.provider.refuse_edit = error  # type: ignore[assignment]
    assert world.see(pod("a:2", generation=2)) is not None
    world.provider.refuse_edit = None
    assert world.see(pod("a:2", generation=2)) is None
    assert (len(world.provider.edits), len(world.told.words)) == (2, told)


def test_a_runner_of_an_older_version_is_asked_of_once(world: World) -> None:
    world.submit(pod())
    world.provider.run(pod())
    report = world.provider.jobs[PodUid("u")]
    assert report.runner is not None
    world.provider.tell(replace(report, runner=report.runner._replace(edition=None)))
    world.see(pod())
    for _ in range(2):
        world.see(pod("a:2", generation=2))
    assert world.provider.edits == [wanted(pod("a:2"))]
