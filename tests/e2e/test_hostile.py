"""Any text of a pod through a real sbatch: what Slurm then holds is what went in, or ``render`` refused it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from slurm_plugin import commands
from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.job import BatchJob, Gres, JobId, Placement
from slurm_plugin.render import render
from testbed.site import DEFAULT_VERSION

from .test_jobcases import number
from .testbed import Testbed

pytestmark = pytest.mark.e2e
SLURM = os.environ.get("SLURM") or DEFAULT_VERSION
EXAMPLES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HOSTILE = "\"'\\#$`%!*?~&|;<>(){}[] :=-jAé☃\U0001f600\n\t\0"
TEXTS = st.text(alphabet=HOSTILE, min_size=1, max_size=24) | st.text(min_size=1, max_size=24)
# No letter that asks for help, the version, or to wait.
WORDS = st.text(alphabet=HOSTILE, min_size=1, max_size=24).filter(lambda text: text.isprintable() and text.isascii())

JOB = BatchJob(
    name="default/web:1", directory="/scratch/alice", archive="/scratch/alice/a.pyz", archive_digest="0" * 64,
    interpreters=("/usr/bin/python3",), cpus=1, memory_mib=64, tmp_mib=None, gres=(), time_limit_minutes=5, warning_seconds=60,
    extra_arguments=("--hold",),
)  # fmt: skip


def shown(testbed: Testbed, job_id: str) -> dict[str, Any]:
    """What slurmctld holds of a job."""
    told: dict[str, Any] = json.loads(testbed.run("squeue", "--json", "--me", f"--jobs={job_id}").stdout)
    (job,) = (job for job in told["jobs"] if str(job["job_id"]) == job_id)  # 22.05 tells of all, whatever it is asked
    return dict(job)


@contextmanager
def held(testbed: Testbed, job: BatchJob) -> Iterator[str]:
    """Submit a job that waits, for as long as it is looked at; its id."""
    done = testbed.run(*commands.submit(job.directory), stdin=render(job))
    job_id = done.stdout.strip()
    try:
        yield job_id
    finally:
        testbed.run("scancel", job_id)


@EXAMPLES
@given(name=TEXTS, directory=TEXTS, comment=TEXTS)
@example(name='a "b" \\c', directory="it's %j %% $(id) `id` #x", comment=" -- --uid=0 ")
@example(name="#", directory="-", comment="'")
def test_every_text_reaches_slurm_as_it_was_or_is_refused(
    testbed: Testbed, name: str, directory: str, comment: str
) -> None:
    path = f"/scratch/alice/{directory}/x"
    flags = ("--hold", f"--comment={comment}")
    job = replace(JOB, name=f"default/{name}:1", directory=path, extra_arguments=flags)
    if not (name + directory + comment).isprintable():
        with pytest.raises(UnsupportedFieldError):
            render(job)
        return
    with (
        held(testbed, job),
        held(testbed, job) as job_id,
    ):  # the first keeps the second's dependency from being fulfilled
        told = shown(testbed, job_id)
        assert told["name"] == job.name
        assert told["current_working_directory"] == path
        assert told["comment"] == comment
        assert told["dependency"].startswith("singleton")
        assert not told["requeue"]
        if "," not in name:  # the finder refuses what squeue would take for two names
            found = testbed.run(*commands.find_in_queue(job.name)).stdout
            assert job_id in found
            assert found.rstrip("\n").endswith(path)


@pytest.fixture(scope="module")
def elder(testbed: Testbed) -> Iterator[None]:
    """Another job of this name, which keeps the dependency of those after it from being fulfilled and forgotten."""
    with held(testbed, JOB):
        yield


@EXAMPLES
@given(word=WORDS, value=WORDS)
def test_no_raw_flag_takes_the_protocol_from_a_job(testbed: Testbed, elder: None, word: str, value: str) -> None:
    for flags in ((word,), ("--comment",), ("--job-name=x", "-J", value), (f"--{word}",), ("--comment", value)):
        done = testbed.run(
            *commands.submit(JOB.directory), stdin=render(replace(JOB, extra_arguments=("--hold", *flags))), check=False
        )
        if done.returncode:
            continue
        job_id = done.stdout.strip()
        told = shown(testbed, job_id)
        testbed.run("scancel", job_id)
        assert told["name"] == JOB.name
        assert told["dependency"].startswith("singleton")
        assert not told["requeue"]


@pytest.mark.parametrize(
    "job",
    [
        replace(JOB, cpus=3, memory_mib=100, tmp_mib=1),
        replace(JOB, gres=(Gres("gpu", "", 1),), placement=Placement(partition="gpu")),
        replace(JOB, gres=(Gres("gpu", "a100", 2),), placement=Placement(partition="gpu")),
        replace(JOB, placement=Placement(exclusive=True, nice=5, requeue=True)),
        replace(JOB, time_limit_minutes=None, memory_mib=None),
    ],
)
def test_every_resource_is_what_slurm_was_asked_for(testbed: Testbed, job: BatchJob) -> None:
    with held(testbed, job) as job_id:
        told = shown(testbed, job_id)
    # 22.05 writes plain numbers, the old prefix of GRES, and CPUs of the job alone.
    assert number(told["cpus_per_task"] or told["cpus"]) == job.cpus
    assert number(told["memory_per_node"]) == job.memory_mib or job.memory_mib is None
    assert (number(told["minimum_tmp_disk_per_node"]) or 0) == (job.tmp_mib or 0)
    assert told["requeue"] == job.placement.requeue
    if SLURM == "24.11":  # the others' JSON does not tell it of a job that is pending
        assert told["shared"] == (["none"] if job.placement.exclusive else [])
    wanted = ",".join(":".join(filter(None, ("gres/gpu", gres.type, str(gres.count)))) for gres in job.gres)
    assert told["tres_per_node"].replace("gres:", "gres/") == wanted
    if job.time_limit_minutes is not None:
        assert number(told["time_limit"]) == job.time_limit_minutes


def test_a_jobs_id_is_found_by_its_exact_name_alone(testbed: Testbed) -> None:
    with held(testbed, JOB) as first, held(testbed, replace(JOB, name=f"{JOB.name}x")) as second:
        lines = testbed.run(*commands.find_in_queue(JOB.name)).stdout.splitlines()
    found = {line.partition("|")[0] for line in lines}
    assert JobId(first) in found
    assert second not in found
