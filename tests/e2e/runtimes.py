"""The program that runs containers under test: the site's Apptainer, or SingularityCE where ``RUNTIME=singularity`` asks for it."""

import functools
import os

from testbed.paths import Layout
from testbed.site import singularity

VARIABLE = "RUNTIME"
SINGULARITY = "singularity"


@functools.cache
def program() -> str:
    """Return its name or path on the site; SingularityCE is built when it is not there."""
    wanted = os.environ.get(VARIABLE, "")
    assert wanted in {"", SINGULARITY}, f"{VARIABLE}={wanted}"
    return singularity.ensure(Layout.from_environment().cache) if wanted else "apptainer"
