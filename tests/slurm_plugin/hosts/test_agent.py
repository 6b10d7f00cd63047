"""What the near half does when the far half is slow, silent, gone or mad; with a far half made of a few lines."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable

import pytest

from slurm_plugin.errors import HostError, TransportError
from slurm_plugin.hostagent.protocol import MAGIC, Decoder, Header, encode
from slurm_plugin.hosts import connection
from slurm_plugin.hosts.agent import AgentHost

HELLO = {"user": "alice", "home": "/home/alice", "hostname": "login1", "pid": 1, "python": "3.6.8"}
Answer = Callable[[Header, bytes], bytes]


def obedient(header: Header, payload: bytes) -> bytes:
    """Answer everything that has an answer."""
    return encode({"id": header["id"], "result": HELLO if header["op"] == "hello" else None})


def silent(header: Header, payload: bytes) -> bytes:
    """Answer nothing."""
    return b""


class FakeChannel:
    """An agent in memory: what is written to it is answered by a function."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._decoder = Decoder()
        self._archive_seen = False
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self.asked: asyncio.Queue[Header] = asyncio.Queue()
        self.closed = False
        self.say(b"Welcome!\n" + MAGIC[:5])
        self.say(MAGIC[5:])

    def say(self, data: bytes) -> None:
        self._out.put_nowait(data)

    async def read(self) -> bytes:
        return await self._out.get()

    async def write(self, data: bytes) -> None:
        if not self._archive_seen:
            self._archive_seen = True
            return
        for header, payload in self._decoder.feed(data):
            self.asked.put_nowait(header)
            if header.get("op") != "cancel" and (answer := self.answer(header, payload)):
                self.say(answer)

    async def until_asked(self, op: str) -> Header:
        async with asyncio.timeout(10):
            while (header := await self.asked.get())["op"] != op:
                pass
        return header

    async def close(self) -> None:
        self.closed = True
        self.say(b"")

    async def ended(self) -> tuple[int | None, str]:
        return 9, "killed by the weekly reboot"


class Site:
    """Makes channels, counts them, and can be made to fail."""

    def __init__(self) -> None:
        self.answer: Answer = obedient
        self.attempts = 0
        self.failure: Exception | None = None
        self.channels: list[FakeChannel] = []
        self.now = 0.0
        self.host = AgentHost("login1", self.open, pythons=("python3",), now=lambda: self.now)

    async def open(self, argv: tuple[str, ...]) -> FakeChannel:
        assert argv[:4] == ("python3", "-I", "-S", "-B")
        self.attempts += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure
        self.channels.append(FakeChannel(self.answer))
        return self.channels[-1]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    yield site
    await site.host.close()
    assert all(channel.closed for channel in site.channels)


async def test_callers_share_one_attempt(site: Site) -> None:
    assert await asyncio.gather(*(site.host.user() for _ in range(10))) == ["alice"] * 10
    assert site.attempts == 1


async def test_a_failed_attempt_is_repeated_no_sooner_than_its_back_off_allows(site: Site) -> None:
    site.failure = TransportError("refused")
    attempts = []
    while site.now < 200:
        with pytest.raises(TransportError):
            await site.host.user()
        if site.attempts > len(attempts):
            attempts.append(site.now)
        site.now += 0.5
    gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
    assert gaps == [0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    site.failure = None
    site.now += 30
    assert await site.host.user() == "alice"


async def test_what_a_person_must_mend_is_a_host_error_every_time_it_is_tried(site: Site) -> None:
    site.failure = HostError("unknown host key")
    with pytest.raises(HostError, match="login1: unknown host key"):
        await site.host.user()


async def test_a_lost_connection_is_made_again_at_once(site: Site) -> None:
    await site.host.user()
    call = asyncio.ensure_future(site.host.run(["true"], timeout=60))
    site.channels[0].say(b"")
    with pytest.raises(TransportError, match="killed by the weekly reboot"):
        await call
    await site.host.swap_link("/a", "b")
    assert site.attempts == 2
    assert site.channels[0].closed


async def test_nonsense_ends_the_connection(site: Site) -> None:
    await site.host.user()
    site.answer = obedient
    site.channels[0].say(b"\xff\xff\xff\xff")
    with pytest.raises(TransportError, match="nonsense"):
        await site.host.run(["true"], timeout=60)


async def test_a_caller_that_goes_away_cancels_what_it_asked_for(site: Site) -> None:
    await site.host.user()
    channel = site.channels[0]
    channel.answer = silent
    call = asyncio.ensure_future(site.host.run(["sleep", "9"], timeout=60))
    run = await channel.until_asked("run")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await channel.until_asked("cancel") == {"id": run["id"], "op": "cancel"}


async def test_a_late_answer_to_nobody_is_no_harm(site: Site) -> None:
    await site.host.user()
    site.channels[0].say(encode({"id": 99, "result": None}) + encode({"stream": 98, "event": "stdout"}, b"x"))
    await site.host.swap_link("/a", "b")
    assert site.attempts == 1


async def test_an_agent_that_does_not_answer_is_given_up(site: Site) -> None:
    await site.host.user()
    channel = site.channels[0]
    channel.answer = silent
    line = connection.Connection("login1", channel, b"")
    with pytest.raises(TransportError, match="did not answer within"):
        await line.call({"op": "list", "path": "/a"}, timeout=0.01)
    assert line.lost is None  # it may be the file system: the agent is asked
    await channel.until_asked("cancel")
    await channel.until_asked("ping")
    await line.close()


async def test_a_file_replaced_while_it_is_read_is_read_again(site: Site) -> None:
    pieces = iter([("1:1", b"old "), ("1:2", b"en"), ("1:2", b"new "), ("1:2", b"content"), ("1:2", b"")])

    def answer(header: Header, payload: bytes) -> bytes:
        if header["op"] != "read":
            return obedient(header, payload)
        identity, data = next(pieces)
        return encode({"id": header["id"], "result": identity}, data)

    site.answer = answer
    assert await site.host.read("/a") == b"new content"


async def test_too_much_at_once_is_refused_and_harms_nothing(site: Site) -> None:
    with pytest.raises(HostError, match="too much at once"):
        await site.host.write("/a", bytes(65 << 20))
    await site.host.swap_link("/a", "b")
    assert site.attempts == 1
