"""BatchJob → batch script. The only module that writes shell. Pure.

Two quotings live here and must not be mixed: a shell word (``shlex.quote``) and an ``#SBATCH`` value. sbatch reads its
lines by rules of its own, not a shell's: inside double quotes a backslash takes the next character as it is. The third
way for a string, an environment value, never passes through a script: it is a file.
"""

import shlex

from .commands import START_ARCHIVE
from .errors import UnsupportedFieldError
from .job import BatchJob
from .jobdir import JobDir

# Whether an interpreter will do; one that is missing, too old or broken fails in its own way.
_PROBE = "import sys; sys.exit(sys.version_info < (3, 6))"

_NOT_PRINTABLE = "holds a character that no #SBATCH line can carry"


def sbatch_value(value: str) -> str:
    """Quote a value for an ``#SBATCH`` line. Raises ValueError for a newline, NUL or another control character."""
    if not all(character.isprintable() for character in value):
        raise ValueError(_NOT_PRINTABLE)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _directive(option: str, value: str | int | None = None) -> str:
    """Return one ``#SBATCH`` line; a bare option when the value is None."""
    if value is None:
        return f"#SBATCH --{option}"
    try:
        return f"#SBATCH --{option}={value if isinstance(value, int) else sbatch_value(value)}"
    except ValueError as error:
        raise UnsupportedFieldError(f"sbatch --{option}", f"{value!r} {error}") from error


def _file_pattern(path: str) -> str:
    """Return a path in which sbatch's file name patterns (``%j``…) stand for themselves."""
    return path.replace("%", "%%")


def _gres(job: BatchJob) -> str:
    return ",".join(":".join(part for part in (gres.name, gres.type, str(gres.count)) if part) for gres in job.gres)


def _resources(job: BatchJob) -> list[str]:
    place = job.placement
    options: tuple[tuple[str, str | int | None], ...] = (
        ("nodes", job.layout.nodes),
        ("ntasks", job.layout.ntasks),
        ("ntasks-per-node", job.layout.tasks_per_node if job.layout.ntasks > 1 else None),
        ("cpus-per-task", job.cpus),
        ("mem", None if job.memory_mib is None else f"{job.memory_mib}M"),
        ("tmp", None if job.tmp_mib is None else f"{job.tmp_mib}M"),
        ("gres", _gres(job) or None),
        ("time", job.time_limit_minutes),
        ("partition", place.partition or None),
        ("account", place.account or None),
        ("qos", place.qos or None),
        ("reservation", place.reservation or None),
        ("constraint", place.constraint or None),
        ("licenses", place.licenses or None),
        ("wckey", place.wckey or None),
        ("comment", place.comment or None),
        ("priority", place.priority),
        ("nice", place.nice),
    )
    lines = [_directive(option, value) for option, value in options if value is not None]
    return [*lines, _directive("exclusive")] if place.exclusive else lines


def _protocol(job: BatchJob) -> list[str]:
    """The options that the exactly-once and terminate protocols stand on; behind the raw flags, so that none undoes them."""
    return [
        _directive("job-name", job.name),
        _directive("chdir", job.directory),
        _directive("output", _file_pattern(JobDir(job.directory).output)),
        _directive("open-mode", "append"),
        _directive("export", "NONE"),
        _directive("requeue" if job.placement.requeue else "no-requeue"),
        _directive("dependency", ",".join((*job.placement.dependencies, "singleton"))),
        _directive("signal", f"B:USR1@{job.warning_seconds}"),
    ]


def _raw(words: tuple[str, ...]) -> list[str]:
    """Return raw sbatch flags, each as a line of its own, quoted.

    sbatch reads all lines as one list of arguments: a last flag that lacks its value takes the next line for it. That is
    to be a line that can be spared, and not the first of the protocol's.
    """
    try:
        lines = [f"#SBATCH {sbatch_value(word)}" for word in words]
    except ValueError as error:
        raise UnsupportedFieldError("raw sbatch flags", f"{words!r} {error}") from error
    return [*lines, _directive("open-mode", "append")] if lines else []


def render(job: BatchJob) -> str:
    """Return the batch script of a job. Its only work is to become the pod runner by ``exec``.

    ``exec`` matters: ``scancel --batch --signal=TERM`` must reach the runner, not a shell that would die of it.
    Raises UnsupportedFieldError for a value that sbatch can't carry.
    """
    arguments = " ".join(shlex.quote(word) for word in (job.archive, job.archive_digest, "run", job.directory))
    interpreters = " ".join(shlex.quote(path) for path in job.interpreters)
    lines = [
        "#!/bin/bash",
        *_raw(job.extra_arguments),
        *_resources(job),
        *_protocol(job),
        "# srun takes SLURM_EXPORT_ENV=NONE as its own --export and would then find no command.",
        "unset SLURM_EXPORT_ENV",
        "umask 077",
        f"for python in {interpreters}; do",
        f'  if "$python" -I -S -B -c {shlex.quote(_PROBE)} 2>/dev/null; then',
        f'    exec "$python" -I -S -B -c {shlex.quote(START_ARCHIVE)} {arguments}',
        "  fi",
        "done",
        f'echo slurmlet: no Python 3.6 or later on "$(uname -n)": tried {shlex.quote(" ".join(job.interpreters))} >&2',
        "exit 127",
        "",
    ]
    return "\n".join(lines)
