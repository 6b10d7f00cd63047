"""How a command ended, as the error stream says it: JSON of a ``metav1.Status`` since v4, bare words before. Pure."""

import json
from typing import Any

_Status = dict[str, Any]


def ended(exit_code: int) -> _Status:
    """Return the status of a command that ran."""
    if exit_code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {exit_code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(exit_code)}]},
    }


def failed(why: str) -> _Status:
    """Return the status of a command that could not be run, or not to its end."""
    message = f"Internal error occurred: {why}"
    details = {"causes": [{"message": why}]}
    return {
        "metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "details": details,
        "code": 500,
    }  # fmt: skip


def encode(status: _Status, version: str) -> bytes:
    """Return a status in the words of a protocol version (``v4.channel.k8s.io``, …); before v4, success has none."""
    if version.startswith(("v4.", "v5.")):
        return json.dumps(status, separators=(",", ":")).encode()
    return b"" if status["status"] == "Success" else str(status["message"]).encode()
