"""Kubernetes resource quantities → Decimal, and upwards to whole units. Pure, and nothing of Slurm.

Rules: ``apimachinery/pkg/api/resource/quantity.go`` of Kubernetes 1.36. A quantity is a signed decimal number and one
suffix: binary (Ki…Ei), decimal (n, u, m, none, k…E) or an exponent (``e3``, ``E-2``). What is finer than a nano is
rounded away from zero; what is beyond ±(2^63 - 1) is that limit. ``1E`` is exa, ``1E3`` an exponent.
"""

import re
from decimal import ROUND_CEILING, ROUND_UP, Context, Decimal

from .errors import InvalidQuantityError, shorten

_SUFFIXES = {
    "n": Decimal(10) ** -9,
    "u": Decimal(10) ** -6,
    "m": Decimal(10) ** -3,
    "": Decimal(1),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}
_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)(?P<digits>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"(?:[eE](?P<exponent>[+-]?[0-9]{1,18})|(?P<suffix>[KMGTPE]i|[numkMGTPE])?)",
    re.ASCII,
)
_LONGEST = 1000
_LARGEST = Decimal(2**63 - 1)
_NANO = Decimal(10) ** -9
_MEBI = Decimal(2**20)
# Wide enough that no product here is rounded, narrow enough that no exponent can make an endless number of digits.
_EXACT = Context(prec=2 * _LONGEST, Emin=-(10**6), Emax=10**6)
_LARGEST_EXPONENT = 10_000


def parse_quantity(value: str | int | float, field: str) -> Decimal:
    """Return a quantity in its base unit (cores, bytes, pieces). A number, as YAML may hold one, is its decimal text.

    Raises InvalidQuantityError with ``field``, the path in the Pod object. Negative quantities are quantities;
    the API server refuses them where they make no sense.
    """
    text = str(value)
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST and not isinstance(value, bool) else None
    if match is None:
        expected = (
            "a number with an optional suffix (n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei) or exponent (e3)"
        )
        raise InvalidQuantityError(field, f"{shorten(text, 80)!r} is not a quantity: expected {expected}")
    magnitude = Decimal(match["digits"])
    if match["exponent"] is None:
        magnitude = _EXACT.multiply(magnitude, _SUFFIXES[match["suffix"] or ""])
    else:
        exponent = max(-_LARGEST_EXPONENT, min(int(match["exponent"]), _LARGEST_EXPONENT))
        magnitude = magnitude.scaleb(exponent, _EXACT)
    bounded = min(magnitude, _LARGEST).quantize(_NANO, ROUND_UP, _EXACT)
    return -bounded if match["sign"] == "-" else bounded


def _ceil(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_CEILING, _EXACT))


def ceil_cpus(cores: Decimal) -> int:
    """Return whole CPUs: 0.1 core takes one."""
    return _ceil(cores)


def ceil_millicores(cores: Decimal) -> int:
    """Return whole thousandths of a core."""
    return _ceil(_EXACT.multiply(cores, Decimal(1000)))


def ceil_mib(size_bytes: Decimal) -> int:
    """Return whole MiB: one byte takes one."""
    return _ceil(_EXACT.divide(size_bytes, _MEBI))
