"""Commands of visitors, where the node has no room for them."""

import errno
import os
from typing import Any

import pytest

from slurm_plugin.runner import visits
from slurm_plugin.runner.join import Inside
from slurm_plugin.runner.loop import Loop


@pytest.mark.parametrize("terminal", [False, True])
def test_a_command_that_there_is_no_room_for_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    def no_room() -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    loop, inside = Loop(), Inside(os.getpid(), -1, {}, "/")

    async def start() -> Any:
        if terminal:
            return await visits._start_on_terminal(loop, inside, ["true"])
        return visits._start_on_pipes(loop, inside, ["true"], stdin=True)

    monkeypatch.setattr(os, "fork", no_room)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="temporarily unavailable"):
        loop.run(start())
    assert sorted(os.listdir("/proc/self/fd")) == before
