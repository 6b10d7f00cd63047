"""Structured records: what a log line is about, and two ways to print it.

Every record about a pod carries ``namespace``, ``pod``, ``uid`` and, once there is one, ``job_id``:
``log.info("…", extra=about(pod))``. Never an environment value, a script or a token.
"""

import json
import logging
import time

from slurm_plugin.job import JobId
from slurm_plugin.pod import Pod

_KEYS = ("namespace", "pod", "uid", "job_id")


def about(pod: Pod, job_id: JobId | str | None = None) -> dict[str, str]:
    """Return the ``extra`` of a record about a pod."""
    metadata = pod.metadata
    return {"namespace": metadata.namespace, "pod": metadata.name, "uid": metadata.uid, "job_id": job_id or ""}


class Formatter(logging.Formatter):
    """One line per record: time in UTC to the millisecond, level, message, then ``key=value`` of what it is about."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        """Return the line; newlines in it are escaped, for a message may quote a user's words."""
        pairs = [f"{key}={value}" for key in _KEYS if (value := getattr(record, key, ""))]
        return " ".join([super().formatMessage(record).replace("\n", "\\n"), *pairs])


class JsonFormatter(Formatter):
    """One JSON object per record: ``time``, ``level``, ``logger``, ``message``, what it is about, and ``error`` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        said = {
            "time": f"{self.formatTime(record, self.datefmt)}.{record.msecs:03.0f}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **{key: value for key in _KEYS if (value := getattr(record, key, ""))},
        }
        if record.exc_info:
            said["error"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)
