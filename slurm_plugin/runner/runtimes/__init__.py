"""How containers are run: one module each, plan in, argv and environment out. Another file here is another runtime.

The name of its module is ``pods.runtime.kind``. It has

- ``ISOLATED``: whether a container's processes die with its first one, and its command waits at a gate (``runner.gate``);
- ``NEEDS_IMAGE``: whether there is anything to be fetched before a container can run;
- ``prepare(setting)``: make the files that ``launch`` names. OSError;
- ``launch(setting) -> Launch``: what to execute. StartError, InexpressibleError;
- ``main_process(pid) -> int``, ``init_process(pid) -> int``: whom a signal for the container is for, and whose KILL ends it;

if it is ISOLATED,

- ``settle(runtime, host) -> Settled``: the site's settings as they are used on this node; asked once per pod;
- ``gate_directory(setting) -> str``: where a run's gate is on the node;
- ``inner_processes(pid) -> List[int]``: the processes inside;

and if it NEEDS_IMAGE

- ``pull_commands(wanted) -> List[List[str]]``: what makes a registry's image a file; the next where one has an unknown flag;
- ``pull_path(path, directory) -> str``: the PATH for these programs, for which files may be made in that directory;
- ``pull_variables(user, password) -> Dict[str, str]``: how these programs are told a login, not on the command line;
- ``image_config(path) -> Optional[ImageConfig]``: what that file says of itself.
"""

from importlib import import_module
from typing import Any, List

from .base import Bind, InexpressibleError, Setting, Settled, Wanted

__all__ = ["Bind", "InexpressibleError", "Setting", "Settled", "Wanted", "kinds", "load"]


def kinds() -> List[str]:
    """Return the runtimes that there are."""
    from pkgutil import iter_modules

    return sorted(module.name for module in iter_modules(__path__) if module.name != "base")


def load(kind: str) -> Any:
    """Return a runtime's module. ValueError for a kind that does not exist."""
    if kind.isidentifier() and kind != "base":
        try:
            return import_module("." + kind, __name__)
        except ImportError as error:
            if error.name != "%s.%s" % (__name__, kind):
                raise
    raise ValueError("no container runtime %r; there are %s" % (kind, " and ".join(kinds())))
