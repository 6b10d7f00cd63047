"""Edits in a job directory's plan, on a real file system through a real host agent."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from slurm_plugin.config import PodSettings
from slurm_plugin.contract import PodContent
from slurm_plugin.editing import edit_plan, edited, wanted
from slurm_plugin.errors import HostError
from slurm_plugin.hosts.local import LocalHost
from slurm_plugin.jobdir import JobDir
from slurm_plugin.runner.plan import edition_of, plan_from_json
from slurm_plugin.staging import job_directory
from slurm_plugin.translate import translate

from .manifests import container, make_pod, make_site

SETTINGS = PodSettings.model_validate({"registries": [{"registry": "example.com", "mirror": "mirror:5000"}]})
INIT = {"name": "first", "image": "busybox:1"}
BEFORE = make_pod(container(name="main", image="busybox:1"), initContainers=[INIT])
AFTER = make_pod(container(name="main", image="example.com/a:2"), initContainers=[INIT], activeDeadlineSeconds=60)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[LocalHost]:
    host = LocalHost()
    await host.stage(str(tmp_path / "job"), job_directory(translate(BEFORE, make_site()).plan, "", PodContent()))
    yield host
    await host.close()


def test_a_plan_is_of_the_edition_of_its_pod() -> None:
    assert edition_of(translate(BEFORE, make_site()).plan) == wanted(BEFORE)
    assert wanted(AFTER) != wanted(BEFORE)


def test_an_edit_changes_nothing_but_images_and_the_deadline() -> None:
    plan = translate(BEFORE, make_site()).plan
    now = edited(plan, AFTER, SETTINGS)
    first, main = now.containers
    assert first == plan.containers[0]
    assert main.image.source == "docker://mirror:5000/a:2"
    assert main._replace(image=plan.containers[1].image) == plan.containers[1]
    assert now._replace(containers=plan.containers, deadline_seconds=0) == plan


async def test_the_plans_file_is_replaced_once(host: LocalHost, tmp_path: Path) -> None:
    directory = JobDir(str(tmp_path / "job"))
    assert not await edit_plan(host, directory, BEFORE, SETTINGS)
    assert await edit_plan(host, directory, AFTER, SETTINGS)
    assert not await edit_plan(host, directory, AFTER, SETTINGS)
    assert edition_of(plan_from_json(json.loads((tmp_path / "job" / "plan.json").read_text()))) == wanted(AFTER)
    assert (tmp_path / "job" / "plan.json").stat().st_mode & 0o777 == 0o600


async def test_a_plan_that_is_gone_or_broken_is_told(host: LocalHost, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="is gone"):
        await edit_plan(host, JobDir(str(tmp_path / "other")), AFTER, SETTINGS)
    (tmp_path / "job" / "plan.json").write_text("{")
    with pytest.raises(HostError, match="can't be read"):
        await edit_plan(host, JobDir(str(tmp_path / "job")), AFTER, SETTINGS)
