import asyncio

import pytest

from slurm_plugin.mailbox import Mailbox


async def test_what_is_told_twice_is_read_once_as_it_then_is() -> None:
    values = {"a": 1, "b": 2}
    mailbox: Mailbox[str, int] = Mailbox(values.get)
    mailbox.tell("a")
    mailbox.tell("b")
    mailbox.tell("a")
    values["a"] = 3
    assert [await mailbox.take(), await mailbox.take()] == [3, 2]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(mailbox.take(), 0)


async def test_taking_waits_and_keys_without_an_item_are_skipped() -> None:
    mailbox: Mailbox[int, int] = Mailbox(lambda key: key or None)
    taking = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    mailbox.tell(0)
    await asyncio.sleep(0)
    assert not taking.done()
    mailbox.tell(5)
    assert await taking == 5


async def test_a_cancelled_taker_loses_nothing() -> None:
    mailbox: Mailbox[int, int] = Mailbox(lambda key: key)
    taking = asyncio.create_task(mailbox.take())
    await asyncio.sleep(0)
    mailbox.tell(1)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert await mailbox.take() == 1


async def test_what_was_cleared_is_not_read() -> None:
    mailbox: Mailbox[int, int] = Mailbox(lambda key: key)
    mailbox.tell(1)
    mailbox.clear()
    mailbox.tell(2)
    assert await mailbox.take() == 2
