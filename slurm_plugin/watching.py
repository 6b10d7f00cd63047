"""The runners' side of the truth: what the job directories say, as one stream of changes from the Host.

One long-lived process on the login node (the archive's ``watch``) reads the state files; this module reads its lines.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from .errors import TransportError
from .hosts.base import Host, HostProcess
from .job import JobId, PodUid
from .runner.state import RunnerState, state_from_json
from .runner.usage import Usage, usage_from_json

log = logging.getLogger(__name__)

# The watcher says something at least every 5 s; this long a silence means that the line is dead.
_SILENCE_SECONDS = 30.0
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class DirectoryView:
    """What one job directory says. ``claim`` is the (job id, restart count) that runs or ran the pod.

    ``staged_at``: epoch seconds, before any job of it was submitted; ``submitted_at``: after the one with ``job_id``
    was. The pod's own job could change both.
    """

    uid: PodUid
    namespace: str
    name: str
    job_id: JobId | None
    claim: tuple[JobId, int] | None
    state: RunnerState | None
    staged_at: int | None = None
    submitted_at: int | None = None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class UsageView:
    """What one pod's runner says that its containers have used."""

    uid: PodUid
    usage: Usage


class Synced:
    """The first look is complete: every directory there was has been yielded."""


def _job_id(text: object) -> JobId:
    if not (isinstance(text, str) and text.isascii() and text.isdigit()):
        raise ValueError(f"not the id of a job: {text!r:.80}")
    return JobId(text)


def _moment(value: Any) -> int | None:
    return None if value is None else int(value)


def _name(text: object) -> str:
    """Return a namespace's or pod's name, empty for what can be none: it becomes part of a path and of a job's name."""
    return text if isinstance(text, str) and _NAME.fullmatch(text) else ""


def _view(data: dict[str, Any]) -> DirectoryView | UsageView:
    uid = PodUid(data["uid"])
    if "usage" in data:
        return UsageView(uid, usage_from_json(data["usage"]))
    if data.get("gone"):
        return DirectoryView(uid, "", "", None, None, None, gone=True)
    claim = data.get("claim")
    state = data.get("state")
    return DirectoryView(
        uid=uid,
        namespace=_name(data.get("namespace")),
        name=_name(data.get("name")),
        job_id=_job_id(data["job_id"]) if data.get("job_id") else None,
        claim=(_job_id(claim["job_id"]), int(claim["restart"])) if claim else None,
        state=state_from_json(state) if state else None,
        staged_at=_moment(data.get("staged_at")),
        submitted_at=_moment(data.get("submitted_at")),
    )


async def _lines(process: HostProcess) -> AsyncGenerator[bytes, None]:
    rest = b""
    while True:
        async with asyncio.timeout(_SILENCE_SECONDS):
            data = await process.read()
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line


async def watch_directories(
    host: Host, argv: tuple[str, ...]
) -> AsyncGenerator[DirectoryView | UsageView | Synced, None]:
    """Yield every job directory, then Synced, then each change, and usage now and then. Raises TransportError when the stream breaks or ends."""
    async with host.process(argv) as process:
        try:
            async for line in _lines(process):
                if not line:
                    continue
                data = json.loads(line)
                if data.get("synced"):
                    yield Synced()
                elif "error" in data:
                    log.error("job directory of pod %s can't be read: %s", data.get("uid"), data["error"])
                elif "uid" in data:
                    try:
                        view = _view(data)
                    except (ValueError, KeyError, TypeError, AttributeError) as error:
                        # One pod's job wrote that; all others must still be seen.
                        log.error("job directory of pod %s makes no sense: %s", data["uid"], error)  # noqa: TRY400
                        continue
                    yield view
        except TimeoutError as error:
            raise TransportError(f"the watcher of job directories was silent for {_SILENCE_SECONDS:.0f} s") from error
        except (ValueError, AttributeError, RecursionError) as error:
            raise TransportError(f"the watcher of job directories printed nonsense: {error}") from error
        async with asyncio.timeout(_SILENCE_SECONDS):
            words = (await process.read_error()).decode(errors="replace").strip()
        raise TransportError(f"the watcher of job directories ended: {words or 'without a word'}")
