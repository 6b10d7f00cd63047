"""``python -m tests.e2e.versions``: what Slurm's versions answer differently, tried on each but the default one.

One version at a time, on a testbed of its own beside whichever is up: brought up, tested, taken down. The first run
builds a root file system per version.
"""

import subprocess
import sys
import time
from collections.abc import Sequence

from testbed.progress import say
from testbed.site import DEFAULT_VERSION
from testbed.site.rootfs import RELEASES

from .testbed import PROJECT_ROOT, TESTBED, environment_beside

FILES = (
    *(
        "test_command_client.py",
        "test_rest_client.py",
        "test_pyslurm_client.py",
        "test_provider_contract.py",
        "test_jobcases.py",
    ),
    *("test_hostile.py", "test_states.py", "test_pods.py"),
)


def _tried(version: str, options: Sequence[str]) -> int:
    environment = environment_beside("versions", 1) | {"SLURM": version}
    files = [f"tests/e2e/{name}" for name in FILES]
    argv = [sys.executable, "-m", "pytest", *options, *files]

    def run(*words: str) -> int:
        return subprocess.run(words, env=environment, cwd=PROJECT_ROOT, check=False).returncode

    try:
        together = ("-m", "e2e and not alone", "-n", "2", "--dist", "loadfile")
        return run(*TESTBED, "up") or run(*argv, *together) or run(*argv, "-m", "e2e and alone")
    finally:
        run(*TESTBED, "down")


def main(options: Sequence[str]) -> int:
    """Test each version, to the last even when one fails; 0 if all passed. ``options`` are pytest's."""
    codes = {}
    for version in RELEASES:
        if version == DEFAULT_VERSION:
            continue
        say(f"Slurm {version}")
        began = time.monotonic()
        codes[version] = _tried(version, options)
        say(f"Slurm {version}: {'failed' if codes[version] else 'passed'}, {time.monotonic() - began:.0f} s")
    return max(codes.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
