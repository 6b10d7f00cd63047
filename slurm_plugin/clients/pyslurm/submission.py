"""A batch script's options → the fields of a ``pyslurm.JobSubmitDescription``. Pure.

Not by pyslurm's own reading of ``#SBATCH`` lines, which takes some options for others (25.11.2: a partition, GPUs per task).
An option that has no field is a refusal that names it: nothing is silently dropped.
"""

from collections.abc import Mapping
from signal import Signals

from .. import jobvalues
from ..jobvalues import Fields

_TEXTS = {
    "account": "account", "array": "array", "comment": "comment", "constraint": "constraints", "dependency": "dependencies",
    "error": "standard_error", "exclude": "excluded_nodes", "job-name": "name", "licenses": "licenses",
    "nodelist": "required_nodes", "nodes": "nodes", "output": "standard_output", "partition": "partitions", "qos": "qos",
    "reservation": "reservations", "wckey": "wckey",
}  # fmt: skip
_WHOLES = {
    "cpus-per-task": "cpus_per_task", "nice": "nice", "ntasks": "ntasks", "ntasks-per-node": "ntasks_per_node",
    "priority": "priority",
}  # fmt: skip
_SIZES = {"mem": "memory_per_node", "mem-per-cpu": "memory_per_cpu", "tmp": "temporary_disk_per_node"}
_TRUE = {
    "contiguous": "requires_contiguous_nodes", "overcommit": "overcommit", "reboot": "requires_node_reboot",
    "requeue": "is_requeueable",
}  # fmt: skip
_SHARING = {"": "exclusive", "true": "exclusive", "user": "user", "mcs": "mcs"}


def fields(options: Mapping[str, str], script: str, *, directory: str) -> Fields:
    """Return the fields of a job with these options.

    Raises SubmissionRejectedError for an option that there is no field for, or a value it can't carry.
    """
    found = jobvalues.described(options, _field, taker="pyslurm")
    environment = jobvalues.environment(options, directory)
    return found | {"script": script, "working_directory": directory, "environment": environment}


def _field(name: str, value: str) -> Fields | None:
    if name in _TEXTS:
        return {_TEXTS[name]: value}
    if name in _WHOLES:
        return {_WHOLES[name]: int(value)}
    if name in _SIZES:
        return {_SIZES[name]: jobvalues.mib(value)}
    if name in _TRUE:
        return {_TRUE[name]: True}
    return _special(name, value)


def _special(name: str, value: str) -> Fields | None:
    match name:
        case "gres":
            return {"gres_per_node": ",".join(map(_counted, value.split(",")))}
        case "gpus-per-node":
            return {"gres_per_node": f"gpu:{_counted(value)}"}
        case "gpus-per-task":
            return {"gpus_per_task": value}
        case "time":
            return {"time_limit": jobvalues.minutes(value)}
        case "signal":
            return {"signal": _warning(value)}
        case "exclusive":
            return {"resource_sharing": _SHARING[value]} if value in _SHARING else None
        case "hold":
            return {"priority": 0}
        case "no-requeue":
            return {"is_requeueable": False}
        case "open-mode":
            return {"log_files_open_mode": value}
        case "export" if value == "NONE":
            return {}
    return None


def _counted(gres: str) -> str:
    """Return a generic resource with its count, which sbatch takes for 1."""
    return gres if gres.rpartition(":")[2].isdecimal() else f"{gres}:1"


def _warning(value: str) -> Fields:
    notice = jobvalues.warning(value)
    number = int(notice.name) if notice.name.isdecimal() else Signals[f"SIG{notice.name}"].value
    seconds = {} if notice.seconds is None else {"time": notice.seconds}
    return {"signal": number, "batch_only": notice.batch, **seconds}
