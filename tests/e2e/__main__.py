"""``python -m tests.e2e``: all end-to-end tests in one go, several at once where they do not disturb each other.

Three pytest processes share the testbed that is up: one begins the waits of minutes and looks at what came of them; one
runs most files, two at a time, for most of a test is waiting; then, when both are done, one runs the files that disturb
others, for they would disturb the waits too.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from testbed.progress import say
from tests import totals

_AT_ONCE = "2"
_NO_TESTS = 5  # pytest's exit code
_HEARTBEAT_SECONDS = 30.0


def _pytest(report: str, marks: str, *options: str) -> list[str]:
    words = ["-m", f"e2e and {marks}", f"--junitxml={totals.REPORTS / report}.xml", *options, "tests"]
    return [sys.executable, "-m", "pytest", *words]


def _wait(process: subprocess.Popen[str], said: Path) -> int:
    """Wait for a pytest with ``-v``, telling now and then which of its tests it is at; its exit code."""
    begun = time.monotonic()
    while True:
        try:
            return process.wait(_HEARTBEAT_SECONDS)
        except subprocess.TimeoutExpired:
            lines = [line for line in said.read_text().splitlines() if "::" in line]
            at = lines[-1].split()[0] if lines else "their beginning"
            say(f"  … {time.monotonic() - begun:.0f} s, at {at}")


def main(options: Sequence[str]) -> int:
    """Run them; 0 if all passed. ``options`` are pytest's, for every process."""
    begun = time.monotonic()
    for old in totals.REPORTS.glob("e2e-*.xml"):
        old.unlink()
    with tempfile.TemporaryDirectory() as directory:
        said = Path(directory) / "said"
        with said.open("w") as out:
            argv = _pytest("e2e-last", "last", "-v", *options)
            waits = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True)
        try:
            together = _pytest("e2e-together", "not last and not alone", "-n", _AT_ONCE, "--dist", "loadfile", *options)
            codes = [subprocess.run(together, check=False).returncode]
            say("The tests that wait for minutes have run meanwhile; the rest of their time …")
            codes.append(_wait(waits, said))
        finally:
            waits.kill()
        print(said.read_text(), flush=True)
        codes.append(subprocess.run(_pytest("e2e-alone", "alone", *options), check=False).returncode)
    print(f"End-to-end tests: {totals.told('e2e-')}, in {time.monotonic() - begun:.0f} s", flush=True)
    return max(0 if code == _NO_TESTS else abs(code) for code in codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
