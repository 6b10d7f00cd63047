"""Progress is readable without a terminal."""

import io

import pytest

from testbed.progress import step


def test_a_short_step_is_one_line() -> None:
    out = io.StringIO()

    with step("Boiling water", stream=out):
        pass

    assert out.getvalue().startswith("  ✓ Boiling water (0.")
    assert out.getvalue().count("\n") == 1


def test_a_failed_step_says_so_and_lets_the_error_pass() -> None:
    out = io.StringIO()

    with pytest.raises(RuntimeError, match="burnt"), step("Boiling water", stream=out):
        raise RuntimeError("burnt")

    assert out.getvalue().startswith("  ✗ Boiling water (failed, 0.")
