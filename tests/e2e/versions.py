"""``python -m tests.e2e.versions``: what Slurm's versions answer differently, tried on each but the default one, and SingularityCE.

One at a time, on a testbed of its own beside whichever is up: brought up, tested, taken down. The first run builds a
root file system per version, and SingularityCE.
"""

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from testbed.progress import say
from testbed.site import DEFAULT_VERSION, singularity
from testbed.site.rootfs import RELEASES

from . import runtimes
from .testbed import PROJECT_ROOT, TESTBED, environment_beside

SLURM_FILES = (
    *(
        "test_command_client.py",
        "test_rest_client.py",
        "test_pyslurm_client.py",
        "test_provider_contract.py",
        "test_jobcases.py",
    ),
    *("test_hostile.py", "test_states.py", "test_pods.py"),
)
CONTAINER_FILES = tuple(f"test_{name}.py" for name in ("runner_apptainer", "enter", "hostile_pods", "probes", "pods"))

_NO_TESTS = 5  # pytest's exit code


def _tried(what: str, variables: Mapping[str, str], names: Sequence[str], options: Sequence[str]) -> int:
    environment = {**environment_beside("versions", 1), **variables}
    files = [f"tests/e2e/{name}" for name in names]
    argv = [sys.executable, "-m", "pytest", *options, *files]

    def run(*words: str) -> int:
        code = subprocess.run(words, env=environment, cwd=PROJECT_ROOT, check=False).returncode
        return 0 if code == _NO_TESTS else code

    say(what)
    began = time.monotonic()
    try:
        together = ("-m", "e2e and not alone", "-n", "2", "--dist", "loadfile")
        code = run(*TESTBED, "up") or run(*argv, *together) or run(*argv, "-m", "e2e and alone")
    finally:
        run(*TESTBED, "down")
    say(f"{what}: {'failed' if code else 'passed'}, {time.monotonic() - began:.0f} s")
    return code


def main(options: Sequence[str]) -> int:
    """Test each, to the last even when one fails; 0 if all passed. ``options`` are pytest's."""
    others = [version for version in RELEASES if version != DEFAULT_VERSION]
    codes = [_tried(f"Slurm {version}", {"SLURM": version}, SLURM_FILES, options) for version in others]
    what, variables = f"SingularityCE {singularity.VERSION}", {runtimes.VARIABLE: runtimes.SINGULARITY}
    return max(*codes, _tried(what, variables, CONTAINER_FILES, options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
