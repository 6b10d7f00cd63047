"""A provider that raises what it should not: the client is told, and never takes it for success."""

import asyncio
import json
import logging

import pytest

from .spdyclient import dial
from .test_exec import opened, path, port
from .test_portforward import dialed, echo, pair

UNEXPECTED = [TimeoutError("late"), ValueError("a bug"), asyncio.CancelledError(), ConnectionResetError("gone")]


@pytest.mark.parametrize(
    ("call", "error"),
    # A lost connection while input is read is the client's, whose end the other half sees.
    [(c, e) for c in ("exec", "read", "write", "wait") for e in UNEXPECTED if (c, type(e)) != ("write", ConnectionResetError)],
)  # fmt: skip
async def test_a_command_that_could_not_be_carried_never_looks_like_success(server, local, caplog, call, error):
    local.failing[call] = error
    async with asyncio.timeout(60), dial(port(server), path("cat", streams="input output")) as client:
        said, stdin, _ = await opened(client, "error", "stdin", "stdout")
        await stdin.write(b"x", last=True)
        status = json.loads(await said.all())
        assert (status["status"], status["reason"], status["code"]) == ("Failure", "InternalError", 500)
    bugs = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert isinstance(error, ConnectionError) or (len(bugs) == 1 and bugs[0].exc_info is not None)


@pytest.mark.parametrize("error", UNEXPECTED[:3], ids=lambda error: type(error).__name__)
async def test_one_forwarded_port_that_fails_leaves_its_siblings_alone(server, local, caplog, error):
    local.failing["connect"] = error
    async with asyncio.timeout(60), echo() as served, dialed(server) as client:
        _, good = await pair(client, served, "0")
        await good.write(b"one ")
        await good.until(b"one ")
        said, bad = await pair(client, 1, "1")
        assert await bad.all() == b""
        assert (await said.all()).startswith(b"error forwarding port 1 to pod default/p: ")
        await good.write(b"two", last=True)
        assert await good.all() == b"one two"
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]
