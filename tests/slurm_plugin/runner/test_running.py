"""One run of a container, in this process."""

import os
from pathlib import Path

from slurm_plugin.jobdir import JobDir
from slurm_plugin.runner.book import Book, Facts
from slurm_plugin.runner.claim import Run
from slurm_plugin.runner.image import ImageConfig, ReadyImage
from slurm_plugin.runner.loop import Loop
from slurm_plugin.runner.running import RunningContainer
from slurm_plugin.runner.runtimes import Setting
from slurm_plugin.runner.shared import Shared

from .jobs import QUICK, container, pod


def started(loop: Loop, path: Path, script: str, **changes: object) -> RunningContainer:
    (what,) = containers = (container("a", "/bin/sh", "-c", script, **changes),)
    plan = pod(*containers, scratch=str(path))
    book = Book(plan, Facts(Run("42", 0), "cn1", (), ()))
    shared = Shared(loop, JobDir(str(path / "job")), plan, book, QUICK)
    image = ReadyImage("", "", ImageConfig((), (), (), "", ""))
    setting = Setting(
        container=what,
        runtime=plan.runtime,
        image=image,
        command=what.command or (),
        arguments=(),
        working_dir="/",
        environment={},
        binds=(),
        hostname="",
        scratch=str(path),
        host=dict(os.environ),
    )
    running = RunningContainer(shared, setting, str(path / "0.log"))
    running.start()
    return running


def what_is(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:
        return "closed"


def test_nobody_can_attach_to_a_terminal_that_is_closed_already_while_what_is_left_of_the_container_is_ended(
    tmp_path: Path,
) -> None:
    loop = Loop()
    running = started(loop, tmp_path, "trap '' HUP; sleep 600 & exit 0", tty=True, stdin=True)
    handed_out: set[str] = set()

    async def attach_at_every_turn() -> None:
        end = loop.spawn(running.finish(), "end")
        while not end.done:
            entry = running.attachments.input
            if entry.descriptor >= 0:
                handed_out.add(what_is(entry.descriptor))
            await loop.sleep(0)

    loop.run(attach_at_every_turn())
    assert handed_out == {"/dev/ptmx"}
