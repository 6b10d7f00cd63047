"""``python -m tests.e2e``: all end-to-end tests in one go, several at once where they do not disturb each other.

Three pytest processes share the testbed that is up: one begins the waits of minutes and looks at what came of them; one
runs most files, two at a time, for most of a test is waiting; then one runs the files that disturb others, alone.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

_AT_ONCE = "2"
_NO_TESTS = 5  # pytest's exit code


def _pytest(marks: str, *options: str) -> list[str]:
    return [sys.executable, "-m", "pytest", "-m", f"e2e and {marks}", *options, "tests"]


def main(options: Sequence[str]) -> int:
    """Run them; 0 if all passed. ``options`` are pytest's, for every process."""
    begun = time.monotonic()
    with tempfile.TemporaryFile("w+") as said:
        waits = subprocess.Popen(_pytest("last", *options), stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            together = _pytest("not last and not alone", "-n", _AT_ONCE, "--dist", "loadfile", *options)
            codes = [subprocess.run(argv, check=False).returncode for argv in (together, _pytest("alone", *options))]
            print("The tests that wait for minutes have run meanwhile; the rest of their time …", flush=True)
            codes.append(waits.wait())
        finally:
            waits.kill()
        said.seek(0)
        print(said.read())
    print(f"End-to-end tests took {time.monotonic() - begun:.0f} s", flush=True)
    return max(0 if code == _NO_TESTS else abs(code) for code in codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
