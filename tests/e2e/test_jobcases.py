"""The real slurmctld takes every case of ``tests/slurm_plugin/jobcases.py``, and reports what was meant back.

But for the signal before the time limit, of which it says nothing.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm_plugin.job import BatchJob
from testbed.paths import Layout
from tests.slurm_plugin.jobcases import CASES

from .testbed import Testbed

pytestmark = pytest.mark.e2e

# All scripts in one go, each held: nothing of them runs. One line for each: its number and the job's id, or sbatch's words.
SUBMIT = """
set -u
cd "$1"
for script in *.sh; do
    echo "$script $(sbatch --parsable --hold < "$script" 2>&1 | tr '\\n' ' ')"
done
"""


def inside(testbed: Testbed, *argv: str, user: str = "alice") -> tuple[str, ...]:
    """The command that runs another one on the login node as a user."""
    pid = testbed.environment["SLURMLET_TESTBED_SITE_PID"]
    become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--")
    return ("nsenter", "-t", pid, "-m", "--", *(become if user != "root" else ()), *argv)


@pytest.fixture(scope="module")
def reservation(testbed: Testbed) -> Iterator[None]:
    """A reservation of alice's, far in the future."""
    words = ("reservationname=course", "starttime=now+10hours", "duration=60", "users=alice", "nodes=cn1")
    words += ("flags=ignore_jobs",)  # other tests' jobs may last until then, for all that Slurm knows
    testbed.run(*inside(testbed, "scontrol", "create", *words, user="root"))
    yield
    testbed.run(*inside(testbed, "scontrol", "delete", "reservationname=course", user="root"))


@pytest.fixture(scope="module")
def scripts(testbed: Testbed) -> Path:
    directory = Layout.from_environment().share / "jobcases"
    directory.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(CASES):
        if case.on_paper:
            continue
        # A dependency is on a job that exists: any of alice's that has ended does, or is pending.
        (directory / f"{number:03}.sh").write_text(case.script(number).replace("afterany:1,singleton", "singleton"))
        (directory / f"{number:03}.sh").chmod(0o644)
    directory.chmod(0o755)
    return directory


def number(value: Any) -> Any:
    """A number as 24.11 and later write it; None where none is set."""
    if isinstance(value, dict):
        return value["number"] if value["set"] and not value.get("infinite") else None
    return value


def meant(job: BatchJob) -> dict[str, Any]:
    """What slurmctld is to say of a job."""
    place = job.placement
    said: dict[str, Any] = {
        "name": job.name,
        "time_limit": job.time_limit_minutes or 60,
        "account": place.account or "physics",
        "qos": place.qos or "normal",
        "partition": place.partition or "cpu",
        "features": place.constraint,
        "comment": place.comment,
        "resv_name": place.reservation,
        "requeue": place.requeue,
        "licenses": place.licenses,
        "memory_per_node": job.memory_mib,
        "minimum_tmp_disk_per_node": job.tmp_mib or 0,
        "tres_per_node": sorted(f"gres/{':'.join(p for p in (g.name, g.type, str(g.count)) if p)}" for g in job.gres),
        "nice": place.nice or 0,
        "working": job.directory,
        "wckey": place.wckey,
        "dependency": "singleton",
        "node_count": job.layout.nodes,
        "tasks": job.layout.ntasks,
        "tasks_per_node": job.layout.tasks_per_node if job.layout.ntasks > 1 else 0,
        "cpus_per_task": job.cpus,
        "begins later": "--begin" in job.extra_arguments,
        "gpus": sum(gres.count for gres in job.gres) * job.layout.nodes,
    }
    return said | ({"whole nodes": True} if place.exclusive else {"cpus": job.cpus * job.layout.ntasks})


def reported(found: dict[str, Any], job: BatchJob) -> dict[str, Any]:
    keys = {
        "working": found["current_working_directory"],
        "tres_per_node": sorted(re.sub(r"^gres:", "gres/", part) for part in found["tres_per_node"].split(",") if part),
        "licenses": found["licenses"],
        # 26.05 forgets one that is fulfilled.
        "dependency": found["dependency"].removesuffix("(unfulfilled)") or "singleton",
        # 22.05 guesses the one and does not tell the other.
        "node_count": int(re.findall(r"node=(\d+)", found["tres_req_str"])[0]),
        "cpus_per_task": number(found["cpus_per_task"]) or job.cpus,
        "begins later": number(found["eligible_time"]) - number(found["submit_time"]) > 3000,
        "gpus": int((re.findall(r"gres/gpu=(\d+)", found["tres_req_str"]) or ["0"])[0]),
        "whole nodes": found["whole nodes"],
    }
    plain = {key: number(found[key]) for key in meant(job) if key not in keys and key != "nice"}
    nice = int(number(found.get("nice", 0)) or 0)
    keys = {key: value for key, value in keys.items() if key in meant(job)}
    return {**plain, **keys, "nice": nice - 0x80000000 if nice >= 0x80000000 else nice}


def exclusive(testbed: Testbed) -> set[str]:
    """The jobs that are to have whole nodes, of which 26.05 says nothing in JSON; before, it is told by what they share."""
    lines = testbed.run("scontrol", "--oneliner", "show", "job").stdout.splitlines()
    words = [dict(word.partition("=")[::2] for word in line.split(" ")) for line in lines]
    return {
        said["JobId"]
        for said in words
        if (said["Exclusive"] == "NODE" if "Exclusive" in said else said["OverSubscribe"] == "NO")
    }


def test_slurmctld_accepts_every_case_and_reports_the_same(testbed: Testbed, scripts: Path, reservation: None) -> None:
    lines = testbed.run(*inside(testbed, "sh", "-c", SUBMIT, "sh", str(scripts)), timeout_seconds=300).stdout
    answers = dict(line.split(" ", 1) for line in lines.splitlines())
    assert len(answers) == sum(not case.on_paper for case in CASES)
    ids = {name: answer.strip().split(" ")[-1] for name, answer in answers.items()}
    try:
        refused = {CASES[int(name[:3])].name: answer for name, answer in answers.items() if not ids[name].isdigit()}
        assert refused == {}
        whole = exclusive(testbed)
        jobs = {
            str(job["job_id"]): job | {"whole nodes": str(job["job_id"]) in whole}
            for job in json.loads(testbed.run("squeue", "--json").stdout)["jobs"]  # scontrol of 22.05 has no JSON
        }
        differing = {}
        for name, job_id in ids.items():
            job = CASES[int(name[:3])].translate(int(name[:3])).job
            if meant(job) != reported(jobs[job_id], job):
                pairs = {key: (value, reported(jobs[job_id], job).get(key)) for key, value in meant(job).items()}
                differing[CASES[int(name[:3])].name] = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
        assert differing == {}
    finally:
        testbed.run("scancel", *(job_id for job_id in ids.values() if job_id.isdigit()))
