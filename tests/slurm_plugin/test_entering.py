"""The helper step of a pod: who waits for its start is told when it does not come."""

import asyncio

import pytest

from slurm_plugin.entering import Helper
from slurm_plugin.errors import PodNotFoundError
from slurm_plugin.hosts.connection import Connection


async def never() -> Connection:
    await asyncio.Event().wait()
    raise AssertionError


async def test_who_waits_for_a_step_of_a_pod_that_ends_is_told_so() -> None:
    helper = Helper("default/web:1", never, idle_seconds=60)
    waiting = asyncio.create_task(helper.call({"op": "admit"}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await helper.close()
    with pytest.raises(PodNotFoundError, match="default/web:1"):
        await waiting


async def test_who_gives_up_waiting_is_cancelled_and_not_told_anything() -> None:
    helper = Helper("default/web:1", never, idle_seconds=60)
    waiting = asyncio.create_task(helper.call({"op": "admit"}))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await helper.close()
