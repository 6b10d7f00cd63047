from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_plugin.errors import InvalidQuantityError
from slurm_plugin.quantity import ceil_cpus, ceil_mib, ceil_millicores, parse_quantity

LARGEST = Decimal(2**63 - 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", "0"), ("1", "1"), ("+1", "1"), ("-1", "-1"), ("1.", "1"), (".5", "0.5"), ("007", "7"), ("1.50", "1.5"),
        ("100n", "0.0000001"), ("100u", "0.0001"), ("100m", "0.1"), ("1k", "1000"), ("1M", "1000000"), ("1G", "1e9"),
        ("1T", "1e12"), ("1P", "1e15"), ("1E", "1e18"), ("1Ki", "1024"), ("1Mi", "1048576"), ("1Gi", "1073741824"),
        ("1Ti", "1099511627776"), ("1Pi", "1125899906842624"), ("1Ei", "1152921504606846976"), ("1.5Gi", "1610612736"),
        ("1e3", "1000"), ("1E3", "1000"), ("1e+3", "1000"), ("1e-3", "0.001"), ("12E-1", "1.2"), ("-0.5Mi", "-524288"),
        (2, "2"), (0.25, "0.25"), (1e-07, "0.0000001"),
    ],
)  # fmt: skip
def test_every_form_of_a_quantity_has_its_value(text: str | float, value: str) -> None:
    assert parse_quantity(text, "f") == Decimal(value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "1 ", " 1", "+", ".", "1..2", "1Kib", "1ki", "1K", "1mi", "1e", "1e1.5", "1e3Ki", "1Gi5", "0x10", "1_0", "٣", "NaN",
     "Infinity", "--1", "1,5", "1\n", "e3", "Ki", "9" * 1001, True],
)  # fmt: skip
def test_garbage_is_refused_by_its_path(text: str) -> None:
    with pytest.raises(InvalidQuantityError, match=r"^spec\.x: ") as caught:
        parse_quantity(text, "spec.x")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", ["9223372036854775808", "100E", "8Ei", "1e19", "1e999999999999999999", "9" * 999])
def test_what_is_too_large_is_the_largest_quantity(text: str) -> None:
    assert parse_quantity(text, "f") == LARGEST
    assert parse_quantity(f"-{text}", "f") == -LARGEST


@pytest.mark.parametrize("text", ["0.1n", "1e-10", "1e-999999999999999999", "0." + "0" * 900 + "1"])
def test_what_is_too_fine_is_rounded_away_from_zero(text: str) -> None:
    assert parse_quantity(text, "f") == Decimal("1e-9")
    assert parse_quantity(f"-{text}", "f") == Decimal("-1e-9")


def test_zero_with_a_large_exponent_is_zero() -> None:
    assert parse_quantity("0e999999999", "f") == 0


@pytest.mark.parametrize(
    ("text", "cpus", "millicores"), [("0", 0, 0), ("1n", 1, 1), ("100m", 1, 100), ("1", 1, 1000), ("1001m", 2, 1001)]
)
def test_cpus_are_rounded_up(text: str, cpus: int, millicores: int) -> None:
    assert ceil_cpus(parse_quantity(text, "f")) == cpus
    assert ceil_millicores(parse_quantity(text, "f")) == millicores


@pytest.mark.parametrize(
    ("text", "mib"), [("0", 0), ("1", 1), ("1Mi", 1), ("1048577", 2), ("128M", 123), ("1Gi", 1024), ("8Ei", 2**43)]
)
def test_memory_is_rounded_up_to_mebibytes(text: str, mib: int) -> None:
    assert ceil_mib(parse_quantity(text, "f")) == mib


@given(st.text())
def test_no_text_raises_anything_but_the_named_error(text: str) -> None:
    try:
        value = parse_quantity(text, "f")
    except InvalidQuantityError:
        return
    assert abs(value) <= LARGEST
