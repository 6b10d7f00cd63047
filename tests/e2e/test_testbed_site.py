"""The testbed's HPC site and registry are what the rest of the tests take them for."""

import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone]


def ssh(testbed: Testbed, *command: str) -> str:
    variables = {name.removeprefix("SLURMLET_TESTBED_SSH_"): value for name, value in testbed.environment.items()}
    options = ("-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes")
    return testbed.run(
        *("ssh", *options, "-o", f"UserKnownHostsFile={variables['KNOWN_HOSTS']}", "-i", variables["KEY"]),
        *("-p", variables["PORT"], f"{variables['USER']}@{variables['HOST']}", *command),
    ).stdout


def output(testbed: Testbed, *sbatch: str, script: str) -> str:
    """Run a batch script to its end and return what it wrote."""
    job = testbed.run(
        "sbatch", "--parsable", "--wait", "--output=/scratch/alice/%j.out", *sbatch, stdin=f"#!/bin/bash\n{script}"
    ).stdout.strip()
    return testbed.run("srun", "--quiet", "--output=-", "cat", f"/scratch/alice/{job}.out").stdout


def fetch(url: str, **headers: str) -> Any:
    """Get a JSON document from one of the testbed's own servers, past any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=headers), timeout=60) as answer:  # noqa: S310  it is http
        return json.load(answer)


def test_all_nodes_take_jobs(testbed: Testbed) -> None:
    nodes = set(testbed.run("sinfo", "--noheader", "--Node", "--format=%N %T").stdout.splitlines())
    assert {node.split()[0] for node in nodes} == {"cn1", "cn2", "cn3", "cn4", "gn1", "gn2"}
    assert {node.split()[1] for node in nodes} <= {"idle", "mixed", "allocated", "completing"}


def test_jobs_are_alices_and_their_exit_code_is_accounted(testbed: Testbed) -> None:
    done = testbed.run("sbatch", "--parsable", "--wait", "--output=/dev/null", stdin="#!/bin/sh\nexit 3", check=False)
    assert done.returncode == 3
    words = ("sacct", "-n", "-P", "-X", "-j", done.stdout.strip(), "-o", "user,account,state,exitcode")
    wait_until("accounting to say so", lambda: testbed.run(*words).stdout.strip() == "alice|physics|FAILED|3:0")


def test_gpu_job_sees_as_many_devices_as_it_asked_for(testbed: Testbed) -> None:
    seen = output(testbed, "-p", "gpu", "--gres=gpu:a100:2", script='echo "$CUDA_VISIBLE_DEVICES"')
    assert len(seen.strip().split(",")) == 2


def test_account_that_is_not_ours_is_rejected(testbed: Testbed) -> None:
    done = testbed.run("sbatch", "--account=nobody", stdin="#!/bin/sh\n", check=False)
    assert done.returncode != 0
    assert "Invalid account" in done.stderr


def test_small_qos_limits_the_number_of_submitted_jobs(testbed: Testbed) -> None:
    held = [
        testbed.run("sbatch", "--parsable", "--hold", "--qos=small", stdin="#!/bin/sh\n", check=False) for _ in range(3)
    ]
    try:
        assert [done.returncode for done in held] == [0, 0, 1]
        assert "QOSMaxSubmitJobPerUserLimit" in held[2].stderr
    finally:
        testbed.run("scancel", *(done.stdout.strip() for done in held if done.returncode == 0))


def test_container_from_the_registry_runs_in_a_job_without_root(testbed: Testbed) -> None:
    registry = testbed.environment["SLURMLET_TESTBED_REGISTRY"]
    said = output(
        testbed,
        script=f'exec apptainer -q exec --no-https "docker://{registry}/library/busybox:1.36" sh -c "busybox | head -1; id -un"',
    )
    assert said.startswith("BusyBox")
    assert said.endswith("alice\n")


@pytest.mark.parametrize(
    ("image", "configuration"),
    [
        ("library/busybox:1.36", {"Cmd": ["sh"]}),
        ("library/python:3.11-slim", {"Cmd": ["python3"]}),
        ("slurmlet/test-entrypoint:1", {"Entrypoint": ["/bin/sh", "-c"], "WorkingDir": "/data"}),
    ],
)
def test_registry_serves_images_with_their_configuration(
    testbed: Testbed, image: str, configuration: dict[str, object]
) -> None:
    repository, tag = image.split(":")
    base = f"http://{testbed.environment['SLURMLET_TESTBED_REGISTRY']}/v2/{repository}"
    manifest = fetch(f"{base}/manifests/{tag}", Accept="application/vnd.oci.image.manifest.v1+json")
    served = fetch(f"{base}/blobs/{manifest['config']['digest']}")["config"]
    assert configuration.items() <= served.items()
    assert any(entry.startswith("PATH=") for entry in served["Env"])


def test_login_by_ssh_needs_no_slurm_conf(testbed: Testbed) -> None:
    assert ssh(testbed, "id -un; squeue --noheader --me --name=none && echo works").split() == ["alice", "works"]


def test_agent_can_run_with_the_sites_own_python(testbed: Testbed) -> None:
    said = ssh(testbed, "/opt/slurmlet/venv/bin/python -c 'import kubernetes, paramiko, slurmlet; print(\"imported\")'")
    assert said == "imported\n"


def test_slurmrestd_answers_a_token_of_scontrol(testbed: Testbed) -> None:
    token = testbed.run("scontrol", "token", "lifespan=60").stdout.strip().removeprefix("SLURM_JWT=")
    url = testbed.environment["SLURMLET_TESTBED_SLURMRESTD"]
    headers = {"X-SLURM-USER-NAME": "alice", "X-SLURM-USER-TOKEN": token}
    paths = fetch(f"{url}/openapi/v3", **headers)["paths"]
    version = min(path.split("/")[2] for path in paths if path.startswith("/slurm/v"))
    assert fetch(f"{url}/slurm/{version}/ping", **headers)["errors"] == []


def test_arguments_and_input_reach_the_site_unchanged(testbed: Testbed) -> None:
    comment = 'it\'s "$HOME" `id` \\ ü'
    job = testbed.run("sbatch", "--parsable", "--hold", f"--comment={comment}", stdin="#!/bin/sh\n").stdout.strip()
    try:
        shown = testbed.run("scontrol", "show", "job", job).stdout
        assert f"Comment={comment}" in [line.strip() for line in shown.splitlines()]
    finally:
        testbed.run("scancel", job)


def test_machine_sees_no_mount_of_the_site(testbed: Testbed) -> None:
    share = Path(testbed.environment["PATH"].split(":")[0]).parent / "site"
    assert f"{share}/" not in Path("/proc/self/mountinfo").read_text()


def test_second_up_is_quick(testbed: Testbed) -> None:
    started = time.monotonic()
    testbed.run(sys.executable, "-m", "testbed", "up", "--only", "site")
    assert time.monotonic() - started < 10
