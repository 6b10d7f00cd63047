"""A pyslurm that is missing, of another release, silent or dying: each is said, and nothing is submitted twice for it.

The child is the real one; the library in it is a module of a few lines. The real one is asked in tests/e2e.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from slurm_plugin.clients.command import Timeouts
from slurm_plugin.clients.pyslurm.client import PyslurmClient
from slurm_plugin.clients.pyslurm.library import Library
from slurm_plugin.errors import (
    ConfigurationError,
    SlurmError,
    SlurmUnavailableError,
    SubmissionRejectedError,
    TransportError,
)
from slurm_plugin.hosts.base import HostProcess
from slurm_plugin.job import JobId

SCRIPT = "#!/bin/sh\n#SBATCH --job-name=a\n"
LIBRARY = """
import os, time
__version__ = "26.5.0"
class RPCError(Exception):
    def __init__(self, errno, words):
        super().__init__(words)
        self.errno = errno
class Conf:
    version, cluster_name = "26.05.5", "testbed"
class slurmctld:
    class Config:
        load = staticmethod(Conf)
class JobSubmitDescription:
    def __init__(self, **fields):
        self.fields = fields
    def submit(self):
        print("a word of the library's")
        {submit}
class Jobs:
    @staticmethod
    def load():
        {jobs}
class Job:
    def __init__(self, number):
        pass
    def cancel(self):
        {cancel}
"""

Make = Callable[..., PyslurmClient]


class Process:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._in, self._out, self._error = process.stdin, process.stdout, process.stderr

    async def write(self, data: bytes) -> None:
        self._in.write(data)
        await self._in.drain()

    async def close_stdin(self) -> None:
        self._in.close()

    async def read(self) -> bytes:
        return await self._out.read(65536)

    async def read_error(self) -> bytes:
        return await self._error.read(65536)

    async def wait(self) -> int:
        return await self._process.wait()


class Here:
    """A machine whose Python finds modules in a directory."""

    def __init__(self, modules: Path) -> None:
        # No bytecode: a module that is written anew within a second, with as many letters, would be the former one.
        self._environment = os.environ | {"PYTHONPATH": str(modules), "PYTHONDONTWRITEBYTECODE": "1"}
        self.started = 0

    @asynccontextmanager
    async def process(self, argv: tuple[str, ...]) -> AsyncIterator[HostProcess]:
        self.started += 1
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=pipe, stdout=pipe, stderr=pipe, env=self._environment, cwd="/"
        )
        try:
            yield Process(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


@pytest.fixture
async def make(here: Here, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[PyslurmClient] = []

    def make(**bodies: str) -> PyslurmClient:
        text = LIBRARY
        for name in ("submit", "jobs", "cancel"):
            text = text.replace("{" + name + "}", bodies.get(name, "return {}"))
        (tmp_path / "pyslurm.py").write_text(text + bodies.get("more", ""))
        made.append(PyslurmClient(Library(here, python=sys.executable), timeouts=Timeouts(submit=1, query=1, cancel=1)))
        return made[-1]

    yield make
    for client in made:
        await client.close()


async def test_a_job_is_submitted_and_what_the_library_prints_is_no_answer(make: Make) -> None:
    assert await make(submit="return 12").submit(SCRIPT, directory="/") == JobId("12")


async def test_a_pyslurm_of_another_release_is_named_with_slurms(make: Make) -> None:
    client = make(submit="return 12", more='\n__version__ = "25.11.2"\n')
    with pytest.raises(ConfigurationError, match=r"pyslurm 25\.11\.2 .* Slurm 26\.05\.5"):
        await client.submit(SCRIPT, directory="/")


async def test_a_python_without_pyslurm_is_named(make: Make) -> None:
    client = make(more='\nraise ImportError("libslurm.so.99: cannot open shared object file")\n')
    with pytest.raises(ConfigurationError, match=r"has no pyslurm that works: libslurm\.so\.99"):
        await client.jobs()


async def test_a_submission_without_an_answer_may_have_made_a_job(make: Make, here: Here) -> None:
    client = make(submit="time.sleep(60)")
    with pytest.raises(TransportError, match="no answer within 1 s"):
        await client.submit(SCRIPT, directory="/")
    await client.jobs()  # another process
    assert here.started == 2


async def test_a_library_that_ends_its_process_is_heard_and_started_again(make: Make, here: Here) -> None:
    client = make(jobs='print("fatal: no configuration"); os._exit(1)')
    with pytest.raises(SlurmUnavailableError, match="fatal: no configuration"):
        await client.jobs()
    with pytest.raises(SlurmUnavailableError):
        await client.jobs()
    assert here.started == 2


async def test_who_stops_waiting_leaves_no_answer_for_the_next_question(make: Make, here: Here) -> None:
    client = make(submit="time.sleep(0.5); return 12")
    submitting = asyncio.create_task(client.submit(SCRIPT, directory="/"))
    while not here.started:  # noqa: ASYNC110  the host tells nobody
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)
    submitting.cancel()
    await asyncio.wait({submitting})
    assert await client.jobs() == {}


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (2045, "Invalid account or account/partition combination specified", SubmissionRejectedError),
        (2050, "Job violates accounting/QOS policy (job submit limit, …)", SubmissionRejectedError),
        (1007, "Unable to contact slurm controller (connect failure)", SlurmUnavailableError),
        (5004, "Socket timed out on send/recv operation", TransportError),
    ],
)
async def test_a_refused_submission_is_judged_by_its_words(
    make: Make, number: int, words: str, expected: type[SlurmError]
) -> None:
    client = make(submit=f"raise RPCError({number}, {words!r})")
    with pytest.raises(expected, match=words.split("(")[0]) as caught:
        await client.submit(SCRIPT, directory="/")
    if isinstance(caught.value, SubmissionRejectedError):
        assert caught.value.limit == (number == 2050)


async def test_a_value_that_pyslurm_can_not_carry_is_a_refusal(make: Make) -> None:
    client = make(submit='raise ValueError("Invalid Signal: 99.")')
    with pytest.raises(SubmissionRejectedError, match="Invalid Signal"):
        await client.submit(SCRIPT, directory="/")


async def test_a_job_that_is_gone_is_cancelled_in_vain_and_the_systems_errors_prove_nothing(make: Make) -> None:
    await make(cancel='raise RPCError(2017, "Invalid job id specified")').cancel(JobId("7"))
    with pytest.raises(TransportError, match="in progress"):
        await make(cancel='raise RPCError(115, "Operation now in progress")').cancel(JobId("7"))
