"""The agent's own log as a source of times: each record has a time to the millisecond, a message and a pod's UID."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

_RECORD = re.compile(r"(?P<time>\S+Z) +[A-Z]+ +(?P<message>.*?)(?: (?:namespace|pod|uid|job_id)=|$)")
_UID = re.compile(r" uid=(\S+)")


@dataclass(frozen=True, slots=True)
class Record:
    """One line. ``at``: seconds since the epoch; ``uid``: the pod's, "" if it is about none."""

    at: float
    message: str
    uid: str


class AgentLog:
    """The log from where it ended when this object was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def records(self) -> Iterator[Record]:
        """Yield what has been written since."""
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            for line in stream.read().decode(errors="replace").splitlines():
                if match := _RECORD.match(line):
                    uid = _UID.search(line)
                    at = datetime.fromisoformat(match["time"]).timestamp()
                    yield Record(at, match["message"], uid[1] if uid else "")

    def times(self, message: str, uid: str | None = None) -> list[float]:
        """Return when this message was written, about one pod or about any."""
        return [r.at for r in self.records() if r.message == message and uid in (None, r.uid)]
