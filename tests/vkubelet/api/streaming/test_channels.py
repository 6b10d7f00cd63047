import asyncio

import pytest

from vkubelet.api.streaming.channels import Inbox, Room


async def test_bytes_are_read_as_they_came_and_then_the_end():
    inbox = Inbox(Room(limit=100))
    inbox.put(b"ab")
    inbox.put(b"c")
    inbox.end()
    inbox.put(b"too late")
    assert [await inbox.read(), await inbox.read(), await inbox.read()] == [b"abc", b"", b""]


async def test_a_reader_waits_for_bytes():
    inbox = Inbox(Room(limit=100))
    reading = asyncio.create_task(inbox.read())
    await asyncio.sleep(0)
    inbox.put(b"x")
    assert await reading == b"x"


async def test_a_full_room_is_waited_for_until_somebody_reads():
    room = Room(limit=10)
    first, second = Inbox(room), Inbox(room)
    first.put(b"123456")
    await room.wait()
    second.put(b"7890")
    waiting = asyncio.create_task(room.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    await first.read()
    await waiting


async def test_what_nobody_will_read_takes_no_room():
    room = Room(limit=10)
    inbox = Inbox(room)
    inbox.put(bytes(20))
    inbox.discard()
    await room.wait()
    inbox.put(bytes(20))
    await room.wait()


async def test_a_broken_stream_is_an_error_whatever_had_arrived():
    inbox = Inbox(Room(limit=100))
    inbox.put(b"half")
    inbox.break_off("gone")
    with pytest.raises(ConnectionError, match="gone"):
        await inbox.read()
