"""The totals are those of pytest's own reports."""

from pathlib import Path

from tests.totals import told

REPORT = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'


def test_the_reports_of_one_kind_are_added_up(tmp_path: Path) -> None:
    (tmp_path / "e2e-together.xml").write_text(REPORT.format(10, 1, 1, 2))
    (tmp_path / "e2e-alone.xml").write_text(REPORT.format(5, 0, 0, 0))
    (tmp_path / "unit.xml").write_text(REPORT.format(100, 0, 0, 0))
    assert told("e2e-", tmp_path) == "11 passed, 2 skipped, 2 FAILED"
    assert told("unit", tmp_path) == "100 passed"


def test_no_report_is_no_test(tmp_path: Path) -> None:
    assert told("e2e-", tmp_path) == "0 passed"
