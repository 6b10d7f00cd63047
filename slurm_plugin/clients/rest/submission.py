"""A batch script's options → the job description that slurmrestd takes. Pure.

Two dialects: v0.0.38 (Slurm 22.05) has sbatch's own words and plain numbers; from v0.0.39 on fields are those of
slurmctld's job description, and numbers that may be unset are ``{"set": true, "number": n}``. An option that has no field
is a refusal that names it: nothing is silently dropped.
"""

from collections.abc import Mapping

from .. import jobvalues
from ..jobvalues import Fields

OLD_DIALECT = 38
# ``shared`` took the place of ``exclusive``; v0.0.40 and v0.0.41 have both.
_SHARED_SINCE = 40

_TEXTS = {
    "account": "account", "array": "array", "comment": "comment",
    "constraint": "constraints", "dependency": "dependency", "error": "standard_error", "job-name": "name",
    "licenses": "licenses", "output": "standard_output", "partition": "partition", "qos": "qos",
    "reservation": "reservation", "wckey": "wckey",
}  # fmt: skip
_WHOLES = {"cpus-per-task": "cpus_per_task", "nice": "nice", "ntasks": "tasks", "ntasks-per-node": "tasks_per_node"}
_LISTS = {"exclude": "excluded_nodes", "nodelist": "required_nodes"}
_MEMORY = {"mem": "memory_per_node", "mem-per-cpu": "memory_per_cpu"}
_TRES = {"gres": "tres_per_node", "gpus-per-node": "tres_per_node", "gpus-per-task": "tres_per_task"}
_TRUE = {
    "hold": "hold",
    "requeue": "requeue",
    "contiguous": "contiguous",
    "overcommit": "overcommit",
    "reboot": "reboot",
}


def request(options: Mapping[str, str], script: str, *, directory: str, version: int) -> Fields:
    """Return the body of ``/job/submit`` for API version v0.0.``version``.

    Raises SubmissionRejectedError for an option that slurmrestd has no field for, or a value it can't carry.
    """
    dialect = _old if version <= OLD_DIALECT else _new

    def field(name: str, value: str) -> Fields | None:
        fields = dialect(name, value, version)
        return _common(name, value) if fields is None else fields

    job = jobvalues.described(options, field, taker="slurmrestd") | {"current_working_directory": directory}
    environment = jobvalues.environment(options, directory)
    words = [f"{name}={value}" for name, value in environment.items()]
    job["environment"] = environment if version <= OLD_DIALECT else words
    return {"script": script, "job": job}


def _common(name: str, value: str) -> Fields | None:
    if name in _TEXTS:
        return {_TEXTS[name]: value}
    if name in _WHOLES:
        return {_WHOLES[name]: int(value)}
    if name in _TRUE:
        return {_TRUE[name]: True}
    if name == "no-requeue":
        return {"requeue": False}
    if name == "export":
        if value != "NONE":
            raise ValueError("there is no environment to export; only NONE is possible")
        return {}
    return None


def _new(name: str, value: str, version: int) -> Fields | None:
    if name == "nodes":
        return {"nodes": value}
    if name in _LISTS:
        return {_LISTS[name]: value.split(",")}
    if name in _MEMORY:
        return {_MEMORY[name]: _set(jobvalues.mib(value))}
    if name == "time":
        return {"time_limit": _set(jobvalues.minutes(value))}
    if name == "priority":
        return {"priority": _set(int(value))}
    if name == "tmp":
        return {"temporary_disk_per_node": jobvalues.mib(value)}
    if name in _TRES:
        return {_TRES[name]: _tres(value if name == "gres" else f"gpu:{value}")}
    if name == "open-mode":
        return {"open_mode": [value.upper()]}
    if name == "exclusive":
        return {"shared": [_sharing(value)]} if version >= _SHARED_SINCE else {"exclusive": [value or "true"]}
    return _warning(value) if name == "signal" else None


def _old(name: str, value: str, _version: int) -> Fields | None:
    if name == "nodes":
        least, _, most = value.partition("-")
        return {"nodes": [int(least), int(most or least)]}  # one number alone is refused
    if name in _LISTS:
        return {_LISTS[name]: value.split(",")}
    if name in _MEMORY:
        return {_MEMORY[name]: jobvalues.mib(value)}
    if name == "time":
        return {"time_limit": jobvalues.minutes(value)}
    if name in {"gres", "priority"}:
        return {name: value}
    if name == "open-mode":
        return {"open_mode": value}
    if name == "exclusive":
        return {"exclusive": value or "true"}
    # It knows no warning of the batch script alone, and no other process of a pod's job would know what to do with one.
    return {} if name == "signal" and jobvalues.warning(value).batch else None


def _set(number: int) -> Fields:
    return {"set": True, "infinite": False, "number": number}


def _tres(gres: str) -> str:
    return ",".join(f"gres/{one}" for one in gres.split(","))


def _sharing(value: str) -> str:
    return {"": "none", "true": "none"}.get(value, value)


def _warning(value: str) -> Fields:
    notice = jobvalues.warning(value)
    fields: Fields = {"kill_warning_signal": notice.name}
    if notice.seconds is not None:
        fields["kill_warning_delay"] = _set(notice.seconds)
    if notice.batch:
        fields["kill_warning_flags"] = ["BATCH_JOB"]
    return fields
