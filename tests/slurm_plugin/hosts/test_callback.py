"""Being called back: who gets in, and for how long anybody can try."""

import asyncio

import pytest

from slurm_plugin.errors import HostError
from slurm_plugin.hosts.callback import expected_call


async def test_only_who_knows_the_secret_gets_in_and_nobody_after() -> None:
    async with expected_call("127.0.0.1") as call:
        stranger, strangers_line = await asyncio.open_connection("127.0.0.1", call.port)
        strangers_line.write(b"x" * len(call.secret) + b"\n")
        assert await _answer(stranger) == b""
        silent, silents_line = await asyncio.open_connection("127.0.0.1", call.port)
        caller, callers_line = await asyncio.open_connection("127.0.0.1", call.port)
        callers_line.write(f"{call.secret}\nhello".encode())
        channel = await call.channel(_Behind())  # type: ignore[arg-type]
        late, lates_line = await asyncio.open_connection("127.0.0.1", call.port)
        lates_line.write(f"{call.secret}\n".encode())
        assert await _answer(late) == b""
    assert await channel.read() == b"hello"
    await channel.write(b"welcome")
    assert await caller.readexactly(7) == b"welcome"
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", call.port)
    assert await _answer(silent) == b""
    await channel.close()
    assert await _answer(caller) == b""
    for line in (strangers_line, lates_line, callers_line, silents_line):
        line.close()


async def test_who_calls_when_nobody_waits_any_more_is_hung_up_on() -> None:
    async with expected_call("127.0.0.1") as call:
        caller, line = await asyncio.open_connection("127.0.0.1", call.port)
        line.write(f"{call.secret}\n".encode())
        await asyncio.sleep(0.1)
    assert await _answer(caller) == b""
    line.close()


async def test_an_address_that_is_not_this_machines_can_not_be_called() -> None:
    with pytest.raises(HostError, match="192.0.2.1"):
        async with expected_call("192.0.2.1"):
            pass


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """What is said before the line is closed."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionError:
        return b""


class _Behind:
    lost = None

    async def close(self) -> None:
        pass
