"""The descriptors between a container and the runner: pipes, or a terminal."""

import fcntl
import os
from typing import Iterable, List, NamedTuple, Tuple

from .process import Stdio, open_terminal

_PIPE_BYTES = 1 << 20
_F_SETPIPE_SZ = 1031  # linux/fcntl.h; the module has it from Python 3.10 on


class Streams(NamedTuple):
    """Both ends. ``outputs`` are what we read, each with its CRI stream's name; ``input`` is what we write to, or -1."""

    theirs: Stdio
    outputs: Tuple[Tuple[int, str], ...]
    input: int


def open_streams(*, stdin: bool, terminal: bool) -> Streams:
    """Open a container's streams. Without ``stdin`` it reads an end of file at once; with it, nothing until we write. OSError."""
    if terminal:
        ours, theirs = open_terminal()
        return Streams(Stdio(theirs, theirs, theirs, True), ((ours, "stdout"),), ours)
    opened: List[int] = []
    try:
        opened += os.pipe() if stdin else (os.open(os.devnull, os.O_RDONLY), -1)
        opened += os.pipe()
        opened += os.pipe()
    except OSError:
        close_all(opened)
        raise
    stdin_end, our_input, out, out_end, err, err_end = opened
    return Streams(Stdio(stdin_end, out_end, err_end, False), ((out, "stdout"), (err, "stderr")), our_input)


def close_all(descriptors: Iterable[int]) -> None:
    """Close each once; -1 is none."""
    for descriptor in set(descriptors) - {-1}:
        os.close(descriptor)


def close_theirs(streams: Streams) -> None:
    """Close the container's ends, once it has them."""
    close_all((streams.theirs.stdin, streams.theirs.stdout, streams.theirs.stderr))


def close_ours(streams: Streams) -> None:
    """Close our ends; of a terminal there is one for both directions."""
    close_all([descriptor for descriptor, _name in streams.outputs] + [streams.input])


def widen(descriptor: int) -> None:
    """Let a pipe hold more than 64 KiB, so that a turn moves more; where the system allows no more it stays as it is."""
    try:
        fcntl.fcntl(descriptor, _F_SETPIPE_SZ, _PIPE_BYTES)
    except OSError:
        return
