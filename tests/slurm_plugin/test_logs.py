import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_plugin.contract import LogOptions, PodReport
from slurm_plugin.errors import PodNotFoundError
from slurm_plugin.job import JobId, JobState, JobStatus, PodUid
from slurm_plugin.jobdir import JobDir
from slurm_plugin.logs import BadLogLineError, ContainerLog, LogLine, _Tail, parse_line
from slurm_plugin.runner.logs import Lines
from slurm_plugin.runner.state import Condition, ContainerState, RunnerState, Running, Terminated, Waiting

from .fakes import FakeHost, run_at_once

DIRECTORY = JobDir("/pods/1")
ENDED = Terminated(0, 0, "Completed", "", 1.0, 2.0)


class Reader:
    """The log of container ``main``, and what is known of it."""

    def __init__(self, state: Condition | None, *, restart: int = 0, last: Terminated | None = None) -> None:
        self.host = FakeHost()
        self.restart = restart
        states = () if state is None else (
            ContainerState("main", "app", state, last, restart, started=True, ready=True, image_id=""),
        )  # fmt: skip
        runner = RunnerState(1, 1, "100", 0, "cn1", (), (), 1.0, 0.0, False, False, "", "", states, ())
        job = JobStatus(JobId("100"), JobState.RUNNING)
        self.report = PodReport(PodUid("u"), "default", "web", JobId("100"), job, runner)
        self.log = ContainerLog(self.host, DIRECTORY, "main", lambda: self.report)

    def write(self, *lines: str, restart: int | None = None) -> None:
        """Append lines of the log file: ``seconds stream tag text``."""
        for line in lines:
            self.append(f"2026-11-22T10:00:{line}\n".encode(), restart=restart)

    def append(self, data: bytes, *, restart: int | None = None) -> None:
        self.host.append(DIRECTORY.log("main", self.restart if restart is None else restart), data)

    def end(self) -> None:
        """The container ends."""
        assert self.report.runner is not None
        state = self.report.runner.containers[0]._replace(state=ENDED)
        self.report = replace(self.report, runner=self.report.runner._replace(containers=(state,)))

    def stream(self, **options: Any) -> AsyncGenerator[bytes, None]:
        return self.log.read(LogOptions(**options))

    async def read(self, **options: Any) -> bytes:
        async with aclosing(self.stream(**options)) as stream:
            return b"".join([data async for data in stream])


def test_a_line_of_the_cri_format_is_read() -> None:
    line = parse_line(b"2026-11-22T10:00:00.123456789Z stderr P  two  blanks ")
    assert line == LogLine(b"2026-11-22T10:00:00.123456789Z", partial=True, text=b" two  blanks ", stream=b"stderr")
    assert line.seconds == pytest.approx(1795341600.123456)
    assert parse_line(b"2026-11-22T10:00:00Z stdout F:x ").text == b""


@pytest.mark.parametrize(
    "line", [b"", b"x", b"T stdout F", b"T stdin F x", b"T stdout X x", b"T  stdout F x", b"\0" * 100]
)
def test_what_is_no_line_of_the_cri_format_is_an_error(line: bytes) -> None:
    with pytest.raises(BadLogLineError, match="not a CRI log line"):
        parse_line(line)


@pytest.mark.parametrize("time", [b"yesterday", b"", b"\xff", b"2026-99-99T00:00:00Z"])
def test_a_time_that_is_none_is_an_error(time: bytes) -> None:
    with pytest.raises(BadLogLineError, match="not the time"):
        _ = parse_line(time + b" stdout F x").seconds


LINES = ["01.5Z stdout F one", "02.5Z stderr F two", "03.5Z stdout P thr", "03.5Z stdout F ee", "04.5Z stdout F "]
WHOLE = b"one\ntwo\nthree\n\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, WHOLE),
        ({"tail_lines": 0}, b""),
        ({"tail_lines": 1}, b"\n"),
        ({"tail_lines": 2}, b"three\n\n"),
        ({"tail_lines": 3}, b"two\nthree\n\n"),
        ({"tail_lines": 99}, WHOLE),
        ({"limit_bytes": 0}, b""),
        ({"limit_bytes": 5}, b"one\nt"),
        ({"limit_bytes": 99}, WHOLE),
        ({"limit_bytes": 3, "tail_lines": 2}, b"thr"),
        ({"since_time": 1795341602.5}, b"two\nthree\n\n"),
        ({"since_time": 1795341602.6}, b"three\n\n"),
        ({"since_time": 1795341602.6, "tail_lines": 99}, b"three\n\n"),
        ({"since_time": 2e9}, b""),
        ({"timestamps": True, "tail_lines": 2}, b"2026-11-22T10:00:03.5Z three\n2026-11-22T10:00:04.5Z \n"),
    ],
)  # fmt: skip
async def test_the_options_of_a_log_are_the_kubelets(options: dict[str, Any], shown: bytes) -> None:
    reader = Reader(ENDED)
    reader.write(*LINES)
    assert await reader.read(**options) == shown
    assert await reader.read(**options, follow=True) == shown


async def test_a_last_line_that_was_never_ended_is_shown_without_an_end() -> None:
    reader = Reader(ENDED)
    reader.write("01Z stdout F one", "02Z stdout P tw")
    assert await reader.read() == b"one\ntw"
    assert await reader.read(tail_lines=1) == b"tw"
    assert await reader.read(tail_lines=2) == b"one\ntw"


async def test_a_log_larger_than_one_read_is_whole() -> None:
    reader = Reader(ENDED)
    reader.append(b"".join(b"2026-11-22T10:00:00Z stdout F line %d\n" % number for number in range(20_000)))
    whole = b"".join(b"line %d\n" % number for number in range(20_000))
    assert await reader.read() == whole
    assert await reader.read(tail_lines=10_000) == whole[whole.index(b"line 10000\n") :]
    assert await reader.read(limit_bytes=300_000) == whole[:300_000]


@pytest.mark.timeout(20)
def test_a_line_of_a_long_tail_costs_the_same_however_many_are_kept():
    tail, line = _Tail(60_000), LogLine(b"2026-11-22T10:00:00Z", partial=False, text=b"x")
    for _ in range(70_000):  # would take minutes if each went through what is kept
        tail.add(iter((line,)))
    assert len(tail.lines) == 60_000


async def test_a_line_without_end_is_an_error_and_not_kept() -> None:
    reader = Reader(ENDED)
    reader.append(b"2026-11-22T10:00:00Z stdout F " + b"x" * 1_000_000)
    with pytest.raises(BadLogLineError, match="no runner writes"):
        await reader.read()


async def test_a_container_without_output_has_an_empty_log() -> None:
    assert await Reader(ENDED).read() == b""


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, 'container "main" in pod "web" is waiting to start: ContainerCreating'),
        (Waiting("PodInitializing", ""), 'container "main" in pod "web" is waiting to start: PodInitializing'),
        (Waiting("ImagePullBackOff", "x"), 'container "main" in pod "web" is waiting to start: ImagePullBackOff'),
    ],
)
async def test_a_container_that_never_ran_has_no_log(state: Condition | None, words: str) -> None:
    for options in ({}, {"follow": True}):
        with pytest.raises(PodNotFoundError, match=f"^{words}$"):
            await Reader(state).read(**options)


async def test_the_log_of_another_restart_is_the_previous_one() -> None:
    reader = Reader(Running(3.0), restart=2, last=ENDED)
    reader.write("01Z stdout F old", restart=1)
    reader.write("02Z stdout F new", restart=2)
    assert await reader.read(previous=True) == b"old\n"
    assert await reader.read(previous=True, follow=True) == b"old\n"
    assert await reader.read() == b"new\n"


async def test_during_a_back_off_both_are_the_log_of_the_run_that_ended() -> None:
    reader = Reader(Waiting("CrashLoopBackOff", ""), restart=2, last=ENDED)
    reader.write("01Z stdout F older", restart=1)
    reader.write("02Z stdout F last", restart=2)
    assert await reader.read() == await reader.read(previous=True) == await reader.read(follow=True) == b"last\n"


async def test_after_a_requeue_the_log_is_that_of_the_run_before() -> None:
    reader = Reader(Waiting("ContainerCreating", ""), restart=1, last=ENDED)
    reader.write("01Z stdout F before", restart=0)
    assert await reader.read() == await reader.read(previous=True) == b"before\n"


@pytest.mark.parametrize("state", [None, Running(1.0), ENDED])
async def test_no_previous_run_is_said_in_the_kubelets_words(state: Condition | None) -> None:
    with pytest.raises(PodNotFoundError, match=r'^previous terminated container "main" in pod "web" not found$'):
        await Reader(state).read(previous=True)


def test_following_shows_lines_as_they_come_until_the_container_ends() -> None:
    async def play() -> None:
        reader = Reader(Running(1.0))
        reader.write("01Z stdout F one", "02Z stdout F two")
        async with aclosing(reader.stream(follow=True, tail_lines=1)) as stream:
            assert await anext(stream) == b"two\n"
            asyncio.get_running_loop().call_later(60, reader.write, "03Z stdout F three")
            assert await anext(stream) == b"three\n"
            # Half a line, in the middle of its time, is no line yet.
            reader.append(b"2026-11-22T10")
            asyncio.get_running_loop().call_later(60, reader.append, b":00:04Z stdout F four\n")
            assert await anext(stream) == b"four\n"
            reader.end()
            reader.write("05Z stdout F last words")
            assert await anext(stream) == b"last words\n"
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert reader.host.following == 0

    run_at_once(play())


def test_following_waits_for_a_log_that_is_not_there_yet() -> None:
    async def play() -> None:
        reader = Reader(Running(1.0))
        asyncio.get_running_loop().call_later(5, reader.write, "01Z stdout F one")
        async with aclosing(reader.stream(follow=True)) as stream:
            assert await anext(stream) == b"one\n"

    run_at_once(play())


def test_following_ends_with_the_job() -> None:
    async def play() -> None:
        reader = Reader(Running(1.0))
        reader.write("01Z stdout F one")
        stream = reader.stream(follow=True)
        assert await anext(stream) == b"one\n"
        reader.report = replace(reader.report, absent=True)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    run_at_once(play())


def test_following_respects_the_limit() -> None:
    async def play() -> None:
        reader = Reader(Running(1.0))
        reader.write("01Z stdout F one")
        asyncio.get_running_loop().call_later(5, reader.write, "02Z stdout F two")
        assert await reader.read(follow=True, limit_bytes=6) == b"one\ntw"
        assert reader.host.following == 0

    run_at_once(play())


def test_a_follower_that_closes_the_log_between_two_lines_stops_the_reader() -> None:
    async def play() -> None:
        reader = Reader(Running(1.0))
        async with aclosing(reader.stream(follow=True)) as stream:
            asyncio.get_running_loop().call_later(5, reader.write, "01Z stdout F one")
            assert await anext(stream) == b"one\n"
            assert reader.host.following == 1
        assert reader.host.following == 0

    run_at_once(play())


def test_a_follower_that_goes_away_stops_the_reader() -> None:
    async def play() -> None:
        reader = Reader(Running(1.0))
        following = asyncio.create_task(reader.read(follow=True))
        await asyncio.sleep(5)
        assert reader.host.following == 1
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert reader.host.following == 0

    run_at_once(play())


CHUNKS = st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\r", b"")), max_size=6)


@given(CHUNKS, st.integers(1, 50))
def test_what_the_runner_writes_is_what_is_read(chunks: list[bytes], size: int) -> None:
    reader = Reader(ENDED)
    lines = Lines("stdout", reader.append)
    for number, chunk in enumerate(chunks):
        lines.feed(chunk * (size * 40), number * 1_000_000_001)
    lines.finish(10**10)
    assert asyncio.run(reader.read()) == b"".join(chunk * (size * 40) for chunk in chunks)


async def test_one_stream_of_two_can_be_asked_for() -> None:
    reader = Reader(Running(1.0))
    reader.write("01.000000000Z stdout F out", "02.000000000Z stderr P er", "02.000000000Z stderr F ror")
    assert await reader.read(stream="Stdout") == b"out\n"
    assert await reader.read(stream="Stderr") == b"error\n"
    assert await reader.read(stream="Stderr", since_time=4e9) == b""
