"""What is said on a line through the door is heard, whichever side hangs up first."""

import socket
from typing import Any

from slurm_plugin.hostagent.protocol import encode
from slurm_plugin.runner.line import Line
from slurm_plugin.runner.loop import Loop


def test_what_was_said_before_the_other_side_left_is_heard_though_we_still_speak() -> None:
    loop = Loop()
    ours, theirs = socket.socketpair()
    heard: list[dict[str, Any]] = []
    line = Line(loop, ours, lambda said, _files: heard.append(said))
    theirs.sendall(encode({"event": "exit", "code": 7}))
    theirs.close()

    async def speak() -> None:
        line.send({"op": "close_stdin"})
        await line.over

    loop.run(speak())
    assert heard == [{"event": "exit", "code": 7}]


def test_a_side_that_said_nothing_before_it_left_is_over() -> None:
    loop = Loop()
    ours, theirs = socket.socketpair()
    line = Line(loop, ours, lambda _said, _files: None)
    theirs.close()

    async def speak() -> None:
        line.send({"op": "close_stdin"})
        line.send({"op": "close_stdin"})
        await line.over

    loop.run(speak())
    assert line.over.done
