"""What blocks, in a child: it speaks in JSON, and has nothing of the runner's."""

import os
import time
from collections.abc import Callable
from typing import Any

from slurm_plugin.runner.loop import READ, Loop
from slurm_plugin.runner.worker import Worker


def _wait_long(_emit: Callable[[dict[str, Any]], None]) -> None:
    time.sleep(600)


def test_a_pipe_that_the_runner_closes_is_at_its_end_though_a_worker_still_works() -> None:
    """The stdin of a container, say, while the image of another is being pulled."""
    loop = Loop()
    theirs, ours = os.pipe()
    worker = Worker(loop, _wait_long, lambda _message: None)
    os.close(ours)
    try:
        assert loop.run(loop.ready(theirs, READ, timeout=10))
    finally:
        worker.stop()
        os.close(theirs)
