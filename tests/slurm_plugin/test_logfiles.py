"""A log that is rotated while it is read: nothing is lost, nothing comes twice."""

import pytest

from slurm_plugin.logfiles import CHUNK, LogFile

from .fakes import FakeHost

LOG = "/pods/1/logs/main/0.log"


class RotatingHost(FakeHost):
    """Before each of the reads that ``at`` counts, the log is rotated and begins anew with ``fresh``."""

    def __init__(self, *at: int, fresh: bytes = b"") -> None:
        super().__init__()
        self.at = at
        self.fresh = fresh
        self.reads = 0
        self.rotations = 0
        self.directories.add("/pods/1/logs/main")

    async def read(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes | None:
        self.reads += 1
        if self.reads in self.at:
            self.rotations += 1
            self.files[f"{LOG}.{self.rotations}"] = self.files[LOG]
            self.files[LOG] = self.fresh
        return await super().read(path, offset=offset, limit=limit)


@pytest.mark.parametrize("at", [(), (1,), (2,), (3,), (2, 3), (2, 4)])
async def test_what_is_rotated_away_is_read_to_its_end_first(at: tuple[int, ...]) -> None:
    old, new = b"a" * (CHUNK + 100), b"b" * (2 * CHUNK)
    host = RotatingHost(*at, fresh=new)
    host.files[f"{LOG}.0"] = b"long ago"
    host.files[LOG] = old
    file = LogFile(host, LOG)
    read = b"".join([data async for data in file.read()])
    assert read == old + new * host.rotations
    assert file.offset == len(host.files[LOG])


async def test_a_rotated_log_that_was_removed_already_is_passed_over() -> None:
    host = RotatingHost(2, fresh=b"new")
    host.files[LOG] = b"a" * CHUNK
    file = LogFile(host, LOG)
    pieces = file.read()
    assert await anext(pieces) == b"a" * CHUNK
    read = host.read

    async def removed(path: str, **options: int) -> bytes | None:
        return None if path != LOG else await read(path, **options)

    host.read = removed  # type: ignore[method-assign, assignment]
    assert b"".join([data async for data in pieces]) == b"new"


async def test_a_log_that_does_not_exist_is_empty() -> None:
    assert [data async for data in LogFile(FakeHost(), LOG).read()] == []
