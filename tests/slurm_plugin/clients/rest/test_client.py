"""A slurmrestd that does not answer as itself: what a proxy before it says is never a queue without jobs."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from slurm_plugin.clients.rest.client import RestClient
from slurm_plugin.clients.rest.connection import Address, Connection
from slurm_plugin.clients.rest.tokens import NoTokens
from slurm_plugin.errors import SlurmError, SlurmUnavailableError, TransportError
from slurm_plugin.job import JobId

SCRIPT = "#!/bin/sh\n#SBATCH --job-name=a\n"
PAGE = "<html>We are down for maintenance</html>"


class Front:
    """Answers pings as slurmrestd does, and everything else with what it is told."""

    def __init__(self) -> None:
        self.text = PAGE
        self.ping = '{"pings": [], "errors": []}'

    async def answer(self, request: web.Request) -> web.Response:
        return web.Response(text=self.ping if request.path.endswith("/ping") else self.text)


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    front = Front()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", front.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    yield front
    await runner.cleanup()


@pytest.fixture
async def client(front: Front, tmp_path: Path) -> AsyncIterator[RestClient]:
    client = RestClient(Connection(Address(f"unix:{tmp_path}/s"), NoTokens(), user="alice"), user="alice")
    yield client
    await client.close()


async def test_a_page_of_maintenance_is_no_empty_queue(client: RestClient, front: Front) -> None:
    with pytest.raises(SlurmUnavailableError, match="maintenance"):
        await client.jobs()
    with pytest.raises(SlurmUnavailableError, match="maintenance"):
        await client.ended_jobs([JobId("1")], since=0)
    with pytest.raises(SlurmUnavailableError, match="maintenance"):
        await client.find("a", directory="/", since=0)


async def test_an_object_without_jobs_is_no_empty_queue(client: RestClient, front: Front) -> None:
    front.text = '{"state": "maintenance"}'
    with pytest.raises(SlurmError):
        await client.jobs()
    with pytest.raises(SlurmError):
        await client.ended_jobs([JobId("1")], since=0)


@pytest.mark.parametrize("text", [PAGE, "", '{"state": "maintenance"}', '{"job_id": 0}'])
async def test_a_submission_whose_answer_can_not_be_read_may_have_made_a_job(
    client: RestClient, front: Front, text: str
) -> None:
    front.text = text
    with pytest.raises(TransportError):
        await client.submit(SCRIPT, directory="/")


async def test_a_cancellation_whose_answer_can_not_be_read_may_have_been_none(client: RestClient) -> None:
    with pytest.raises(TransportError):
        await client.cancel(JobId("7"))


async def test_a_page_of_maintenance_is_no_version_of_the_api(client: RestClient, front: Front) -> None:
    front.ping = PAGE
    with pytest.raises(SlurmUnavailableError, match="maintenance"):
        await client.jobs()
    front.ping, front.text = '{"pings": [], "errors": []}', '{"jobs": [], "last_update": 1, "errors": []}'
    assert await asyncio.wait_for(client.jobs(), 10) == {}
