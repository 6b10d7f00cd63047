"""How containers are run: one small module each, plan in, argv and environment out. Pure but for ``main_process``.

A runtime module has ``launch(setting) -> Launch``, ``main_process(pid) -> int`` (whom a signal for the container is for)
and ``ISOLATED`` (whether its processes die with its first one). A third runtime is one more file here.
"""

from typing import Any

from .base import Bind, InexpressibleError, Setting

__all__ = ["Bind", "InexpressibleError", "Setting", "load"]


def load(kind: str) -> Any:
    """Return a runtime's module. ValueError for a kind that does not exist."""
    if kind == "apptainer":
        from . import apptainer

        return apptainer
    if kind == "process":
        from . import process

        return process
    raise ValueError("no container runtime %r; there are apptainer and process" % (kind,))
