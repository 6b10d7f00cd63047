"""The program that runs containers under test: the site's Apptainer, or SingularityCE where ``RUNTIME=singularity`` asks for it."""

import functools
import os
from collections.abc import Sequence

from testbed.paths import Layout
from testbed.site import singularity

VARIABLE = "RUNTIME"
SINGULARITY = "singularity"
_UNMOUNTING = ("fusermount", "unmounting fuse directory", "host cleanup")


@functools.cache
def program() -> str:
    """Return its name or path on the site; SingularityCE is built when it is not there."""
    wanted = os.environ.get(VARIABLE, "")
    assert wanted in {"", SINGULARITY}, f"{VARIABLE}={wanted}"
    return singularity.ensure(Layout.from_environment().cache) if wanted else "apptainer"


def own_words(lines: Sequence[str]) -> list[str]:
    """Return a container's output without what SingularityCE may have added to it.

    Its PostStartHost and CleanupHost unmount the same image; where a container lives for a moment only they meet, and the
    second one and what it started say on the container's standard error that they found nothing.
    """
    if program() == "apptainer":
        return list(lines)
    return [line for line in lines if not any(word in line for word in _UNMOUNTING)]
