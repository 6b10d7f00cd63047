"""The lines of the kubelet contract's checklist that speak of its API are each shown by a test on real parts."""

import re
from pathlib import Path

E2E = Path(__file__).parent / "e2e"
LINES = {*range(9, 13), *range(45, 54)}


def test_every_line_of_the_checklist_about_the_kubelets_api_is_shown_by_an_end_to_end_test() -> None:
    marks = (
        found for file in E2E.glob("test_*.py") for found in re.findall(r"mark\.checklist\((.*?)\)", file.read_text())
    )
    assert {int(line) for mark in marks for line in mark.split(",")} >= LINES
