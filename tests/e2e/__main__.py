"""``python -m tests.e2e``: all end-to-end tests in one go, several at once where they do not disturb each other.

Pytest processes run beside each other, for most of a test is waiting. Two of them share the testbed that is up: one begins
the waits of minutes and, after others that mostly wait and the slow unit tests, looks at what came of them; one runs most
files, two at a time. The others run one by one what disturbs others, each on a testbed of its own: on the last the kernel
keeps jobs to their resources, where this machine can have that; what is to be seen there runs on it, and then other files,
so that all end at about the same time.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed.paths import Layout
from testbed.progress import say
from testbed.site import cgroups
from tests import totals

from .testbed import TESTBED, environment_beside

_AT_ONCE = "2"
_TOGETHER = "e2e and not last and not alone"
_CONSTRAINED = tuple(
    f"tests/e2e/test_{name}.py" for name in ("cgroups", "tenancy", "rules", "runner_apptainer", "mpi", "streaming")
)
_NO_TESTS = 5  # pytest's exit code
_HEARTBEAT_SECONDS = 30.0


def _pytest(report: str, marks: str, *options: str, where: Sequence[str] = ("tests",)) -> list[str]:
    words = ["-m", marks, f"--junitxml={totals.REPORTS / report}.xml", *options, *where]
    return [sys.executable, "-m", "pytest", *words]


@dataclass(frozen=True)
class _Meanwhile:
    """A pytest that runs while another has the terminal; what it says goes to a file."""

    process: subprocess.Popen[str]
    said: Path

    def wait(self) -> int:
        """Wait for it, telling now and then which of its tests it is at, and show all it said; its exit code."""
        begun = time.monotonic()
        while True:
            try:
                code = self.process.wait(_HEARTBEAT_SECONDS)
            except subprocess.TimeoutExpired:
                lines = [line for line in self.said.read_text().splitlines() if "::" in line]
                at = lines[-1].split()[0] if lines else "their beginning"
                say(f"  … {time.monotonic() - begun:.0f} s, at {at}")
            else:
                print(self.said.read_text(), flush=True)
                return code


@contextmanager
def _meanwhile(argv: Sequence[str], environment: Mapping[str, str]) -> Iterator[_Meanwhile]:
    with tempfile.NamedTemporaryFile("w", suffix=".log") as out:
        process = subprocess.Popen(
            [*argv, "-v"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, text=True
        )
        try:
            yield _Meanwhile(process, Path(out.name))
        finally:
            process.kill()
            process.wait()


def main(options: Sequence[str]) -> int:
    """Run them; 0 if all passed. ``options`` are pytest's, for every process."""
    begun = time.monotonic()
    for old in totals.REPORTS.glob("e2e-*.xml"):
        old.unlink()
    own, other = environment_beside("alone", 2), environment_beside("cgroups", 3)
    if not (obstacle := cgroups.obstacle(Layout.from_environment(other))):
        other["CGROUPS"] = "1"
    elsewhere = [f"--ignore={path}" for path in _CONSTRAINED]
    try:
        with ExitStack() as stack:
            beside: tuple[tuple[list[str], Mapping[str, str]], ...] = (
                (_pytest("e2e-last", "slow or (e2e and last)", *options), os.environ),
                (_pytest("e2e-alone", "e2e and alone", *elsewhere, *options), own),
                (_pytest("e2e-cgroups", "e2e", *options, where=_CONSTRAINED), other),
            )
            lanes = [stack.enter_context(_meanwhile(*each)) for each in beside]
            together = _pytest("e2e-together", _TOGETHER, "-n", _AT_ONCE, "--dist", "loadfile", *elsewhere, *options)
            codes = [subprocess.run(together, check=False).returncode]
            say("The tests that wait for minutes, and those that have a testbed of their own, have run meanwhile …")
            codes += [lane.wait() for lane in lanes]
    finally:
        for environment in (own, other):
            subprocess.run([*TESTBED, "down"], env=environment, check=False)
    if obstacle:
        say(f"Not run is what needs a site with cgroups: {obstacle}")
    print(f"End-to-end tests: {totals.told('e2e-')}, in {time.monotonic() - begun:.0f} s", flush=True)
    return max(0 if code == _NO_TESTS else abs(code) for code in codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
