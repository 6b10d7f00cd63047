"""What the value of an annotation is read by. Pure.

Each reader raises ValueError with what was expected; the caller knows which annotation it was.
"""

import re
import shlex

from .job import Dependency, Gres

_LARGEST_TIME_LIMIT_MINUTES = 366 * 24 * 60
_LARGEST_NICE = 2147483645  # sbatch(1), --nice
_LARGEST_PRIORITY = 4294967293  # sbatch(1), --priority; above are NO_VAL and INFINITE
_LARGEST_COUNT = 1_000_000
_LARGEST_MEMORY_MIB = 2**40
_MOST_DEPENDENCIES = 64


def word(value: str) -> str:
    """Read one word."""
    if not value or value.startswith("-") or not all(c.isprintable() and not c.isspace() for c in value):
        raise ValueError("expected one word without blanks or control characters that does not begin with '-'")
    return value


def name(value: str) -> str:
    """Read a plain name."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value, re.ASCII) is None:
        raise ValueError("expected a name of letters, digits, '_', '-' and '.'")
    return value


def flag(value: str) -> bool:
    """Read "true" or "false"."""
    if value not in {"true", "false"}:
        raise ValueError('expected "true" or "false"')
    return value == "true"


def nice(value: str) -> int:
    """Read a nice value."""
    if re.fullmatch(r"[+-]?[0-9]{1,10}", value, re.ASCII) is None or abs(int(value)) > _LARGEST_NICE:
        raise ValueError(f"expected a whole number from -{_LARGEST_NICE} to {_LARGEST_NICE}")
    return int(value)


def arguments(value: str) -> tuple[str, ...]:
    """Read raw arguments of sbatch, quoted as for a shell, into words."""
    if not all(c.isprintable() or c == "\t" for c in value):
        raise ValueError("expected arguments of sbatch on one line, without control characters")
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"expected arguments of sbatch, quoted as for a shell: {error}") from error
    if not words or not words[0].startswith("-"):
        raise ValueError('expected arguments of sbatch, e.g. "--hint=nomultithread --mem-bind=local"')
    return words


_GRES = re.compile(
    r"(?:gres[:/])?(?P<name>[A-Za-z_]\w*)(?::(?P<type>[A-Za-z_][\w.-]*))?(?:[:=](?P<count>[0-9]{1,7}))?", re.ASCII
)


def gres(value: str) -> tuple[Gres, ...]:
    """Read a list of generic resources."""
    matches = [_GRES.fullmatch(part) for part in value.split(",")]
    result = tuple(Gres(m["name"], m["type"] or "", int(m["count"] or 1)) for m in matches if m is not None)
    if len(result) < len(matches) or not all(0 < gres.count <= _LARGEST_COUNT for gres in result):
        raise ValueError('expected name[:type][:count], several with commas, e.g. "gpu:a100:2"')
    return result


_TIME_LIMITS = "minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS (as sbatch), or e.g. 90m, 2h, 1h30m, 1d"
_TIME_FORMS = tuple(
    re.compile(form.replace("#", r"[0-9]{1,7}"), re.ASCII)
    for form in (
        r"(?P<minutes>#)(?::(?P<seconds>#))?",
        r"(?P<hours>#):(?P<minutes>#):(?P<seconds>#)",
        r"(?P<days>#)-(?P<hours>#)(?::(?P<minutes>#)(?::(?P<seconds>#))?)?",
        r"(?=.)(?:(?P<days>#)d)?(?:(?P<hours>#)h)?(?:(?P<minutes>#)m)?(?:(?P<seconds>#)s)?",
    )
)
_UNIT_SECONDS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}


def time_limit(value: str) -> int:
    """Read a time limit into minutes, rounded up as Slurm does (sbatch(1), ``--time``)."""
    match = next((match for form in _TIME_FORMS if (match := form.fullmatch(value))), None)
    if match is None:
        raise ValueError(f"expected {_TIME_LIMITS}")
    seconds = sum(_UNIT_SECONDS[unit] * int(count or 0) for unit, count in match.groupdict().items())
    minutes = -(-seconds // 60)
    if not 0 < minutes <= _LARGEST_TIME_LIMIT_MINUTES:
        raise ValueError(f"expected a time limit from 1 minute to {_LARGEST_TIME_LIMIT_MINUTES} minutes")
    return minutes


def priority(value: str) -> int:
    """Read a priority: 0 would hold the job."""
    if re.fullmatch(r"[0-9]{1,10}", value, re.ASCII) is None or not 0 < int(value) <= _LARGEST_PRIORITY:
        raise ValueError(f"expected a whole number from 1 to {_LARGEST_PRIORITY}")
    return int(value)


def count(value: str) -> int:
    """Read a number of something."""
    if re.fullmatch(r"[0-9]{1,7}", value, re.ASCII) is None or not 0 < int(value) <= _LARGEST_COUNT:
        raise ValueError(f"expected a whole number from 1 to {_LARGEST_COUNT}")
    return int(value)


def memory_mib(value: str) -> int:
    """Read an amount of memory into MiB, rounded up: as sbatch takes it, whose units are powers of 1024."""
    match = re.fullmatch(r"(?P<number>[0-9]{1,12})(?P<unit>[KMGT]?)(?:B|i)?", value, re.ASCII)
    kib = 0 if match is None else int(match["number"]) * 1024 ** "KMGT".index(match["unit"] or "M")
    if not 0 < kib <= _LARGEST_MEMORY_MIB * 1024:
        raise ValueError("expected an amount of memory: 4000 (MiB), 4000M, 4G or 4Gi")
    return -(-kib // 1024)


def text(value: str) -> str:
    """Read a line of text, such as a comment."""
    if not value or not value.isprintable():
        raise ValueError("expected text on one line, without control characters")
    return value


_FEATURES = re.compile(r"[\w.,:=/@+&|*()\[\]-]+", re.ASCII)


def constraint(value: str) -> str:
    """Read an expression of features, in sbatch's own syntax, which is not checked further."""
    if value.startswith("-") or _FEATURES.fullmatch(value) is None:
        raise ValueError("expected features and their operators without blanks, e.g. a100&nvlink or [rack1|rack2]")
    return value


def features_in(constraint: str) -> frozenset[str]:
    """Return the features that an expression names: all between operators but the counts behind ``*``."""
    return frozenset(re.findall(r"[^&|*()\[\],]+", re.sub(r"\*[0-9]+", "", constraint)))


def nodes(value: str) -> str:
    """Read a list of names of Slurm's nodes, ranges among them."""
    if re.fullmatch(r"\w[\w.,\[\]-]*", value, re.ASCII) is None:
        raise ValueError("expected names of nodes, e.g. n1,rack[2-4]")
    return value


_LICENSE = re.compile(r"(?P<name>[A-Za-z_][\w.@/-]*)(?:[:=][0-9]{1,7})?", re.ASCII)


def licenses(value: str) -> str:
    """Read a list of licences: all of them (``,``) or any (``|``)."""
    if not all(_LICENSE.fullmatch(part) for part in re.split(r"[,;|]", value)):
        raise ValueError('expected name[:count], several with commas, e.g. "matlab:2,ansys"')
    return value


def licenses_in(value: str) -> frozenset[str]:
    """Return the names in a list of licences."""
    return frozenset(re.split("[:=]", part)[0] for part in re.split(r"[,;|]", value))


_POD = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?"
_DEPENDENCY = re.compile(rf"(?P<kind>after|afterany|afterok|afternotok)(?P<pods>(?::{_POD})+)", re.ASCII)


def dependencies(value: str) -> tuple[Dependency, ...]:
    """Read sbatch's ``--dependency``, with names of pods in the place of job ids; all must be fulfilled."""
    matches = [_DEPENDENCY.fullmatch(part) for part in value.split(",")]
    result = tuple(Dependency(m["kind"], tuple(m["pods"][1:].split(":"))) for m in matches if m is not None)
    if len(result) < len(matches) or sum(len(each.pods) for each in result) > _MOST_DEPENDENCIES:
        raise ValueError(
            "expected after, afterany, afterok or afternotok with names of pods of this namespace, "
            f'e.g. "afterok:prepare,afterany:a:b"; at most {_MOST_DEPENDENCIES} pods'
        )
    return result


def options(value: str) -> tuple[str, ...]:
    """Read long options of srun, each one plain word."""
    words = tuple(value.split(" "))
    if not all(re.fullmatch(r"--[a-z][a-z-]*(=[\w:,.%@*+/-]+)?", word, re.ASCII) for word in words):
        raise ValueError('expected long options of srun, e.g. "--distribution=cyclic --hint=nomultithread"')
    return words
