"""The watcher's lines, read: what one pod's job wrote harms no other pod."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from slurm_plugin.errors import TransportError
from slurm_plugin.hosts.base import HostProcess
from slurm_plugin.watching import DirectoryView, Synced, watch_directories
from tests.slurm_plugin.fakes import FakeHost


class Printed:
    """A process that has printed something and ended."""

    def __init__(self, output: bytes) -> None:
        self._output = output

    async def write(self, data: bytes) -> None:
        raise AssertionError("nobody writes to a watcher")

    async def close_stdin(self) -> None:
        return

    async def read(self) -> bytes:
        output, self._output = self._output, b""
        return output

    async def read_error(self) -> bytes:
        return b"bye"

    async def wait(self) -> int:
        return 0


class PrintingHost(FakeHost):
    def __init__(self, *lines: object) -> None:
        super().__init__()
        self._output = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def process(self, argv: Sequence[str]) -> AbstractAsyncContextManager[HostProcess]:
        @asynccontextmanager
        async def context() -> AsyncIterator[HostProcess]:
            yield Printed(self._output)

        return context()


def line(uid: str, **fields: object) -> dict[str, object]:
    return {"uid": uid, "namespace": "default", "name": uid, "job_id": None, "claim": None, "state": None, **fields}


@pytest.mark.parametrize(
    "wrong",
    [{"state": {"format": 1}}, {"state": {"format": 2}}, {"state": [1]}, {"job_id": "all"},
     {"staged_at": "x"}, {"claim": {"job_id": "--user=alice", "restart": 0}}, {"claim": {"x": 1}}, {"claim": "x"}],
)  # fmt: skip
async def test_a_line_that_makes_no_sense_is_passed_over(wrong: dict[str, object]) -> None:
    views = watch_directories(PrintingHost(line("a1", **wrong), line("b2"), {"synced": True}), ("watch",))
    first = await anext(views)
    assert isinstance(first, DirectoryView)
    assert first.uid == "b2"
    assert isinstance(await anext(views), Synced)
    with pytest.raises(TransportError, match="bye"):
        await anext(views)


async def test_a_pods_name_that_kubernetes_would_not_have_is_none() -> None:
    views = watch_directories(PrintingHost(line("a1", namespace="../..", name="a,b")), ("watch",))
    view = await anext(views)
    await views.aclose()
    assert isinstance(view, DirectoryView)
    assert (view.namespace, view.name) == ("", "")
