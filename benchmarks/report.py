"""What was measured, as numbers and as a table. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_HEADINGS = ("", "slurmlet", "plain sbatch", "ratio", "aim")


@dataclass(frozen=True, slots=True)
class Measure:
    """One number. ``plain`` is what plain sbatch took for the like; ``part`` marks a step of the measure above it."""

    name: str
    value: float
    unit: str
    plain: float | None = None
    aim: str = ""
    met: bool | None = None
    part: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times plain sbatch's number it is."""
        return self.value / self.plain if self.plain else None


@dataclass(frozen=True, slots=True)
class Result:
    """One experiment with one Host. ``samples`` is what the numbers were made of, for whoever wants to look closer."""

    experiment: str
    host: str
    title: str
    measures: tuple[Measure, ...]
    samples: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """Return it for ``json.dumps``."""
        return {
            "experiment": self.experiment,
            "host": self.host,
            "title": self.title,
            "measures": [asdict(measure) | {"ratio": measure.ratio} for measure in self.measures],
            "samples": {name: [[round(x, 4) for x in row] for row in rows] for name, rows in self.samples.items()},
        }


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that ``share`` of the values do not exceed (nearest rank; p99 of 30 is the largest)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.3f} {unit}" if unit == "s" else f"{value:.1f} {unit}"


def _row(measure: Measure) -> tuple[str, ...]:
    aim = "" if measure.met is None else f"{measure.aim} {'✓' if measure.met else '✗ missed'}"
    ratio = "" if measure.ratio is None else f"{measure.ratio:.2f}"
    return (
        ("    " if measure.part else "  ") + measure.name,
        _number(measure.value, measure.unit),
        _number(measure.plain, measure.unit),
        ratio,
        aim,
    )


def table(results: Iterable[Result]) -> str:
    """Return all results as one table for a terminal."""
    blocks = [(result, [_row(measure) for measure in result.measures]) for result in results]
    rows = [_HEADINGS, *(row for _, rows in blocks for row in rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]

    def line(row: Sequence[str]) -> str:
        first, *rest, last = row
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=False))]
        return "  ".join([*cells, last]).rstrip()

    lines = [line(_HEADINGS)]
    for result, block in blocks:
        lines += ["", f"{result.title} (host: {result.host})", *map(line, block)]
    return "\n".join(lines)
