"""The argument lists of Slurm's commands, as ``parse`` expects their output. Pure: they run nothing.

Everything is asked for in text form with exactly the fields that are needed: 25 times cheaper than ``--json``, and the
same in Slurm 22.05 to 26.05. Users can put newlines and any separator into a job's name and comment, so no field holds
such a string; only ``find_…`` and ``queue_with_keys`` read a job's name or working directory, as the last fields, to be matched
exactly.
``SLURM_TIME_FORMAT=%s`` makes times seconds since the epoch, whatever the time zones of the two sides.
"""

import re
from collections.abc import Sequence

from .job import JobId

SEPARATOR = "|"

# squeue(1), --Format. State comes as one word, a flag hiding the base state; exit_code has two forms.
QUEUE_FIELDS = (
    "JobArrayID", "State", "exit_code", "RestartCnt", "Partition", "SubmitTime", "StartTime", "EndTime", "BatchHost", "NodeList", "Reason",
)  # fmt: skip
WAITING_FIELDS = ("JobArrayID", "PriorityLong", "Partition")
# sacct(1), --format. Restarts is left out: 22.05 does not have it.
ACCOUNTING_FIELDS = ("JobID", "State", "ExitCode", "Partition", "Submit", "Start", "End", "NodeList", "Reason")

STEP_NAME = "slurmlet-enter"

# Runs the archive after checking it. One process: the check, then the program itself.
# argv: the archive, its SHA-256, the subcommand, its argument.
START_ARCHIVE = """\
import hashlib, runpy, sys
archive, digest, *words = sys.argv[1:]
with open(archive, "rb") as stream:
    found = hashlib.sha256(stream.read()).hexdigest()
if found != digest:
    sys.exit("slurmlet: %s was changed: its SHA-256 is %s, not %s; not run" % (archive, found, digest))
sys.argv = [archive, *words]
runpy.run_path(archive, run_name="__main__")
"""
# A constant; what differs are its arguments. The runner has found one of these on this node before.
_FIND_PYTHON = """\
start=$1 archive=$2 digest=$3 directory=$4
shift 4
for python do
  [ -x "$python" ] && exec "$python" -I -S -B -c "$start" "$archive" "$digest" enter "$directory"
done
echo slurmlet: no Python on this node: tried "$@" >&2
exit 127
"""
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_EPOCH_TIMES = ("env", "SLURM_TIME_FORMAT=%s")
# The clocks of the two sides may differ; sacct refuses a start in the future, and an older end than this is no loss.
_CLOCK_SKEW_SECONDS = 3600
_EARLIEST = 1_000_000  # what parse_time.c takes for a time


def submit(directory: str) -> tuple[str, ...]:
    """Submit the script on standard input. Its name, resources and environment stand in its ``#SBATCH`` lines."""
    return ("sbatch", "--parsable", f"--chdir={_absolute(directory)}")


def queue() -> tuple[str, ...]:
    """Ask slurmctld for every job of the calling user, the ended ones that it still remembers (MinJobAge) included."""
    return (*_queue(), f"--Format={_queue_format(QUEUE_FIELDS)}")


def waiting() -> tuple[str, ...]:
    """Ask slurmctld for everybody's waiting jobs: a whole array is one."""
    return ("squeue", "--local", "--noheader", "--states=PENDING", f"--Format={_queue_format(WAITING_FIELDS)}")


def find_in_queue(name: str) -> tuple[str, ...]:
    """Ask slurmctld for the calling user's jobs of exactly this name, with their working directories."""
    return (*_queue(), f"--name={_job_name(name)}", f"--Format={_queue_format((*QUEUE_FIELDS, 'WorkDir'))}")


def queue_with_keys() -> tuple[str, ...]:
    """Ask as ``queue`` does, for names and working directories too."""
    return (*_queue(), f"--Format={_queue_format((*QUEUE_FIELDS, 'Name', 'WorkDir'))}")


def accounting(user: str, job_ids: Sequence[JobId], *, since: int) -> tuple[str, ...]:
    """Ask accounting for these jobs of a user's. ``since``: seconds since the epoch, lest a reused id is another job."""
    ids = ",".join(_job_id(job_id) for job_id in job_ids)
    return (*_accounting(user, since), f"--jobs={ids}", f"--format={','.join(ACCOUNTING_FIELDS)}")


def find_in_accounting(user: str, name: str, *, since: int) -> tuple[str, ...]:
    """Ask accounting for a user's jobs of exactly this name since then, with their working directories."""
    return (
        *_accounting(user, since),
        f"--name={_job_name(name)}",
        f"--format={','.join((*ACCOUNTING_FIELDS, 'WorkDir'))}",
    )


def signal_batch(job_id: JobId, signal: str) -> tuple[str, ...]:
    """Signal the batch process alone.

    The filter on the state is what keeps scancel from waiting for ever on a job that is pending or held: it then
    finds nothing to signal and succeeds.
    """
    if not (signal.isascii() and signal.isalnum()):
        raise ValueError(f"not a signal's name: {signal!r}")
    return ("scancel", "--state=RUNNING", "--batch", f"--signal={signal}", _job_id(job_id))


def cancel(job_id: JobId) -> tuple[str, ...]:
    """Cancel a job, whatever its state."""
    return ("scancel", _job_id(job_id))


def enter(
    job_id: JobId, node: str, *, interpreters: Sequence[str], archive: str, digest: str, directory: str
) -> tuple[str, ...]:
    """Start the helper step of a running job on its batch host (``runner.enter``), beside everything that runs there.

    ``--overlap``, no GRES and ``--mem=0`` (all that the job has) let it start where the job's own processes hold
    everything. Standard output must stay a pipe: ``--unbuffered`` would make it a terminal.
    """
    if not _NODE.fullmatch(node):
        raise ValueError(f"not a node's name: {node!r}")
    return (
        *("srun", "--overlap", f"--jobid={_job_id(job_id)}", "--nodes=1", "--ntasks=1", f"--nodelist={node}"),
        *("--gres=none", "--mem=0", "--cpu-bind=none", "--mpi=none", "--chdir=/", "--propagate=NONE", "--quiet"),
        f"--job-name={STEP_NAME}",
        *("/bin/sh", "-c", _FIND_PYTHON, "sh", START_ARCHIVE, archive, digest, _absolute(directory), *interpreters),
    )


def nodes() -> tuple[str, ...]:
    """Show every node, one a line, those of hidden partitions included."""
    return ("scontrol", "--all", "--details", "--oneliner", "show", "node")


def partitions() -> tuple[str, ...]:
    """Show every partition, one a line, the hidden ones included."""
    return ("scontrol", "--all", "--oneliner", "show", "partition")


def configuration() -> tuple[str, ...]:
    """Show slurmctld's configuration: the cluster's name and Slurm's version among it."""
    return ("scontrol", "show", "config")


def _queue() -> tuple[str, ...]:
    # --me and not --user: squeue ignores a user that it does not know, and then answers for everybody.
    # --local: else squeue asks slurmctld each time whether it is in a federation.
    return (*_EPOCH_TIMES, "squeue", "--local", "--noheader", "--array", "--states=all", "--me")


def _queue_format(fields: Sequence[str]) -> str:
    # squeue(1): each field is type[:[size][suffix]]; nothing is cut at size 0.
    return ",".join(f"{field}:0{SEPARATOR}" for field in fields[:-1]) + f",{fields[-1]}:0"


def _accounting(user: str, since: int) -> tuple[str, ...]:
    # -X: the job itself, not its steps. uts: seconds since the epoch, in every version's parse_time.c.
    start = max(_EARLIEST, since - _CLOCK_SKEW_SECONDS)
    return (
        *_EPOCH_TIMES,
        "sacct",
        "--parsable2",
        "--noheader",
        "-X",
        f"--user={_user(user)}",
        f"--starttime=uts{start}",
    )


def _job_id(job_id: JobId) -> JobId:
    if not (job_id.isascii() and job_id.isdigit()):
        raise ValueError(f"not the id of a job: {job_id!r}")
    return job_id


def _job_name(name: str) -> str:
    # squeue and sacct take a list here, so a comma would be two names.
    if not name or "," in name or not name.isprintable():
        raise ValueError(f"not a job name that can be looked for: {name!r}")
    return name


def _user(user: str) -> str:
    if not user or "," in user or not user.isprintable():
        raise ValueError(f"not a user's name: {user!r}")
    return user


def _absolute(directory: str) -> str:
    if not directory.startswith("/") or not directory.isprintable():
        raise ValueError(f"not an absolute directory: {directory!r}")
    return directory
