"""``python -m tests.totals``: how many tests the last runs of pytest passed, as the reports they left tell."""

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

REPORTS = Path("build/tests")
"""Where `make check` and `python -m tests.e2e` leave pytest's JUnit reports: below the project's root."""


def told(kind: str, reports: Path = REPORTS) -> str:
    """Say ``12 passed, 1 skipped`` of all reports whose name begins with ``kind``."""
    counts: Counter[str] = Counter()
    for path in reports.glob(f"{kind}*.xml"):
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):  # noqa: S314  pytest wrote it
            found = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
            counts.update(found)
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    return f"{passed} passed" + "".join(
        f", {count} {what}" for what, count in (("skipped", counts["skipped"]), ("FAILED", failed)) if count
    )


if __name__ == "__main__":
    sys.stdout.write(f"Unit tests: {told('unit')}\nEnd-to-end tests: {told('e2e-')}\n")
