"""Outputs whose writer has ended: what was written is told before their end."""

import os
import time

from slurm_plugin.runner.loop import Loop
from slurm_plugin.runner.relay import Outlet


def test_what_waits_is_sent_though_this_program_stood_still_meanwhile() -> None:
    loop, ours, theirs = Loop(), *os.pipe()
    said: list[bytes] = []
    over = loop.promise()

    def hear(data: bytes) -> None:
        said.append(data)
        if not data:
            over.resolve()

    async def work() -> None:
        outlet = Outlet(loop, ours, hear)
        outlet.end_when_quiet()
        os.write(theirs, b"last words")  # and somebody holds the other end open
        time.sleep(1.2)  # noqa: ASYNC251  a stopped step, a machine under load
        await loop.first(over, timeout=10)

    loop.run(work())
    os.close(theirs)
    assert said == [b"last words", b""]
