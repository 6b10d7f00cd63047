"""The CRI log format, byte by byte."""

import fcntl
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from slurm_plugin.runner.logs import MAX_PART, Lines, LogFile, Pump, Tail, forget_before, timestamp
from slurm_plugin.runner.loop import Loop

from .conftest import MakeJob
from .jobs import pod, shell


def lines_of(*chunks: bytes, finish: bool = True) -> list[bytes]:
    written: list[bytes] = []
    lines = Lines("stdout", written.append)
    for chunk in chunks:
        lines.feed(chunk, 0)
    if finish:
        lines.finish(0)
    head = timestamp(0) + b" "
    found = b"".join(written).split(head)
    assert found[0] == b""
    return found[1:]


def test_time_has_nanoseconds_in_utc() -> None:
    assert timestamp(1700000000123456789) == b"2023-11-14T22:13:20.123456789Z"


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((b"a\nb\n",), [b"stdout F a\n", b"stdout F b\n"]),
        ((b"a", b"b\n"), [b"stdout F ab\n"]),
        ((b"\n\n",), [b"stdout F \n", b"stdout F \n"]),
        ((b"end",), [b"stdout P end\n"]),
        ((b"\xff\x00\r\n",), [b"stdout F \xff\x00\r\n"]),
        ((), []),
    ],
)
def test_lines_are_whole_and_an_unended_one_is_partial(chunks: tuple[bytes, ...], expected: list[bytes]) -> None:
    assert lines_of(*chunks) == expected


def test_long_line_comes_in_parts_of_16_kib() -> None:
    text = b"x" * (2 * MAX_PART + 5) + b"\n"
    assert lines_of(text) == [
        b"stdout P " + b"x" * MAX_PART + b"\n",
        b"stdout P " + b"x" * MAX_PART + b"\n",
        b"stdout F xxxxx\n",
    ]
    assert lines_of(*(bytes((byte,)) for byte in text)) == lines_of(text), "however it is cut"


def test_log_is_rotated_by_size_and_old_files_go(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "0.log"
    log = LogFile(str(path), max_bytes=100, max_files=3)
    for number in range(20):
        log.write(b"%039d\n" % number)
    log.close()
    files = sorted(path.parent.iterdir())
    assert len(files) == 3
    assert all(file.stat().st_size <= 100 for file in files)
    kept = [int(line) for file in [*files[1:], files[0]] for line in file.read_text().split()]
    assert kept == list(range(kept[0], 20)), "the newest lines, none lost between two files"


def test_a_log_that_can_not_be_rotated_goes_on_where_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = LogFile(str(tmp_path / "0.log"), max_bytes=10, max_files=3)
    hindrance = tmp_path / ".0.log.new"
    hindrance.mkdir()
    for line in (b"one\n", b"two two\n", b"three\n"):
        log.write(line)
    assert (tmp_path / "0.log").read_bytes() == b"one\ntwo two\nthree\n"
    assert capfd.readouterr().err.count("can't rotate") == 1
    hindrance.rmdir()
    log.write(b"four\n")
    log.close()
    assert (tmp_path / "0.log").read_bytes() == b"four\n"
    assert len(list(tmp_path.iterdir())) == 2


def test_logs_of_runs_before_the_previous_one_go_with_what_was_rotated_of_them(tmp_path: Path) -> None:
    kept = {"9.log", "9.log.20231114-221320-000001", "10.log", "nobody's", "².log"}
    for name in kept | {"0.log", "8.log", "8.log.20231114-221320-000001", ".8.log.new"}:
        (tmp_path / name).touch()
    forget_before(str(tmp_path), 9)
    assert {path.name for path in tmp_path.iterdir()} == kept


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """Let no file grow beyond so many bytes; 0 is no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", range(3, 14))
def test_a_line_that_a_full_disk_cut_is_finished_before_the_next(
    tmp_path: Path, full_disk: Callable[[int], None], room: int
) -> None:
    log = LogFile(str(tmp_path / "0.log"), max_bytes=0, max_files=3)
    log.write(b"0\n")
    full_disk(room)
    log.write(b"first\nsecond\n")
    log.write(b"lost\n")
    full_disk(room + 2)
    log.write(b"lost too\n")
    full_disk(0)
    log.write(b"last\n")
    log.close()
    lines = (tmp_path / "0.log").read_text().splitlines()
    assert lines[0] == "0"
    assert lines[-1] == "last"
    assert set(lines) <= {"0", "first", "second", "lost", "lost too", "last"}


@pytest.mark.parametrize("left", [b"", b"2023-11-14T22", b"2023-11-14T22:13:20.123456789Z stdout F half"])
def test_half_a_line_of_a_runner_that_was_killed_does_not_stay(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"x" * 100000 + b"\nwhole\n" + left)
    log = LogFile(str(path), max_bytes=0, max_files=3)
    log.write(b"next\n")
    log.close()
    assert path.read_bytes() == b"x" * 100000 + b"\nwhole\nnext\n"


def test_tail_keeps_the_last_lines_and_bytes() -> None:
    tail = Tail()
    for number in range(10000):
        tail.feed(b"%d\n" % number)
    assert tail.text(2048, 3) == "9997\n9998\n9999\n"
    assert len(tail.text(2048, 80)) < 2048
    assert len(tail.text(2048, 80).splitlines()) == 80


def test_what_is_in_the_pipe_already_is_read_before_reading_stops() -> None:
    """The runner itself may have stood still while the time ran out that it gives a pipe which somebody else holds."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 1 << 18)
    written: list[bytes] = []
    pump = Pump(Loop(), read_end, Lines("stdout", written.append), [])
    os.write(write_end, b"x" * 199_999 + b"\n")
    pump.stop()
    os.close(write_end)
    assert sum(line.count(b"x") for line in written) == 199_999


def test_nothing_of_a_flood_is_lost(job: MakeJob) -> None:
    j = job(pod(shell("a", "seq 1 200000"), log_max_bytes=0))
    assert j.run() == 0
    assert j.log("a") == [f"stdout F {number}" for number in range(1, 200001)]
