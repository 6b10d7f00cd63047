"""A runner that is short of descriptors for a while is not left with fewer."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from slurm_plugin.runner import gate, visits
from slurm_plugin.runner.attaching import Attachments, Fan, Input
from slurm_plugin.runner.join import Inside
from slurm_plugin.runner.loop import Loop
from slurm_plugin.runner.streams import open_streams

from .test_running import started


def opened() -> set[int]:
    names = os.listdir("/proc/self/fd")  # among them that of this list itself, which is closed now
    return {int(name) for name in names if os.path.lexists(f"/proc/self/fd/{name}")}


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """Let so many descriptors more be opened."""
    used, number = opened(), 0
    while count:
        count -= number not in used
        number += 1
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _start(loop: Loop, path: Path, *, tty: bool) -> None:
    started(loop, path, "true", tty=tty, stdin=True)


def _gate(loop: Loop, path: Path) -> None:
    gate.make(str(path))
    gate.Gate(loop, str(path), lambda: True, lambda: True)


def _attach(loop: Loop, _path: Path) -> None:
    fans = {"stdout": Fan(), "stderr": Fan()}
    try:
        Attachments(fans, Input(loop, 0, terminal=False, once=False)).join(lambda: None, stdin=True)
    except OSError:
        for fan in fans.values():
            fan.feed(b"x")  # by which it learns who has gone
        raise


def _enter(loop: Loop, _path: Path) -> None:
    loop.run(visits._start_on_terminal(loop, Inside(os.getpid(), -1, {}, "/"), ["true"]))


OPENERS: dict[str, Callable[[Loop, Path], None]] = {
    "pipes": lambda _loop, _path: str(open_streams(stdin=True, terminal=False)),
    "a container": lambda loop, path: _start(loop, path, tty=False),
    "a container with a terminal": lambda loop, path: _start(loop, path, tty=True),
    "a gate": _gate,
    "an attached visitor": _attach,
    "a visitor's terminal": _enter,
}


@pytest.mark.parametrize("what", OPENERS)
def test_what_can_not_be_opened_as_a_whole_is_not_left_open_by_halves(what: str, tmp_path: Path) -> None:
    loop, room, failed = Loop(), 0, True
    before = opened()
    while failed:
        with room_for(room):
            try:
                OPENERS[what](loop, tmp_path)
            except OSError:
                failed = True
            else:
                failed = False
        if failed:
            assert opened() <= before, f"with room for {room} descriptors"
        room += 1
    for descriptor in opened() - before:
        os.close(descriptor)
    assert room > 2
