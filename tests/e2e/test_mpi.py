"""Pods on many ranks: real Open MPI and MPICH from one image, on several nodes of the cluster."""

import re
from typing import Any

import pytest

from .agents import Agent, running
from .pods import Manifest, Pods, manifest
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]  # one pulls an image of some size

IMAGE = "slurmlet/test-mpi:1"
# Emulated nodes are one machine, which the libraries see: they would speak by a memory that the nodes do not share.
TCP = [
    {"name": "OMPI_MCA_btl", "value": "self,tcp"},
    {"name": "OMPI_MCA_btl_tcp_if_include", "value": "lo"},
    {"name": "OMPI_MCA_pml", "value": "ob1"},
    {"name": "UCX_TLS", "value": "tcp,self"},
]
PULL_SECONDS = 600  # on a machine that does much else


def ranks(name: str, agent: Agent, *command: str, image: str = IMAGE, **annotations: str) -> Manifest:
    pod = manifest(name, agent, *command, image=image, env=TCP)
    pod["metadata"]["annotations"] = {
        f"slurmlet.io/{key.replace('_', '-')}": value for key, value in annotations.items()
    }
    return pod


@pytest.fixture(scope="module")
def agent(testbed: Testbed) -> Any:
    """Its site says that MPI is PMIx where a pod names nothing else."""
    yield from running(Agent(testbed, "ssh", index=15, settings={"pods": {"mpi": "pmix"}}))


def test_real_mpi_programs_find_all_their_ranks_on_two_nodes(pods: Pods, agent: Agent, testbed: Testbed) -> None:
    two = {"nodes": "2", "ntasks_per_node": "2"}
    pods.apply(ranks("openmpi", agent, "mpi-check-openmpi", **two, srun_args="--distribution=cyclic"))
    pods.run_example("mpi.yaml", "mpi")  # MPICH under pmi2
    for name in ("openmpi", "mpi"):
        pods.wait_phase(name, "Succeeded", "Failed", seconds=PULL_SECONDS)
        log = pods.kubectl("logs", name)
        assert "ring 4 allreduce 10" in log, log
        assert len(re.findall(r"^rank \d of 4 on cn\d$", log, re.MULTILINE)) == 4, log
        places = dict(re.findall(r"^rank (\d) of 4 on (cn\d)$", log, re.MULTILINE))
        assert len(set(places.values())) == 2, log
        together = {rank for rank, place in places.items() if place == places["0"]}
        assert together == ({"0", "2"} if name == "openmpi" else {"0", "1"}), log
        assert pods.status(name)["phase"] == "Succeeded"
        (job,) = pods.jobs(name)
        shown = testbed.run("scontrol", "show", "job", job).stdout
        assert "NumNodes=2" in shown, shown
        assert "NumTasks=4" in shown, shown


BUSYBOX = "busybox:1.36"


def test_ranks_and_helpers_each_have_their_place(pods: Pods, agent: Agent, testbed: Testbed) -> None:
    """One pod for what many ranks mean beside MPI: nodes, volumes, labels, probes, helpers, exit code."""
    script = (
        "echo $SLURM_PROCID > /work/$SLURM_PROCID; until test $(ls /work | wc -l) -ge 2; do sleep 0.1; done; "
        "echo $SLURMD_NODENAME $SLURM_NTASKS $(ls /work | tr '\\n' ' ')$SECRET "
        "$SLURM_JOB_NODELIST $SLURM_NNODES $SLURM_NODEID $SLURM_LOCALID; "
        "test $SLURM_PROCID = 0 && touch /ready; until test -e /shared/go; do sleep 0.1; done; exit $((SLURM_PROCID + 3))"
    )
    pod = ranks(
        "place", agent, "sh", "-c", script, image=BUSYBOX, nodes="2", ntasks="4", mpi="none", label_ranks="true"
    )
    (main,) = pod["spec"]["containers"]
    main["env"] = [{"name": "SECRET", "value": "it's"}]
    main["readinessProbe"] = {"exec": {"command": ["test", "-e", "/ready"]}, "periodSeconds": 1, "timeoutSeconds": 10}
    work = {"name": "work", "mountPath": "/work", "subPath": "ranks"}  # which every rank compares at its own gate
    main["volumeMounts"] = [work, {"name": "shared", "mountPath": "/shared"}]
    helper = {
        "name": "helper",
        "image": BUSYBOX,
        "command": [
            "sh",
            "-c",
            "echo $SLURMD_NODENAME $SLURM_PROCID; until test -e /work/0; do sleep 0.1; done; ls /work",
        ],
        "volumeMounts": [work],
        "resources": {"requests": {"cpu": "1", "memory": "16Mi"}},
    }
    pod["spec"]["containers"].append(helper)
    pod["spec"]["volumes"] = [
        {"name": "work", "emptyDir": {}},
        {"name": "shared", "configMap": {"name": "go", "optional": True}},
    ]
    pods.apply(pod)
    pods.wait("place", "to be ready", lambda s: any(c["name"] == "main" and c["ready"] for c in s["containerStatuses"]))

    def log() -> list[str]:
        return sorted(
            line
            for line in pods.kubectl("logs", "place", "-c", "main").splitlines()
            if line[:2] in {f"{n}:" for n in range(4)}
        )

    lines = wait_until("every rank to speak", lambda: len(log()) == 4 and log())
    # Each rank knows its number; emptyDir is of one node, and shared by its ranks.
    assert [line.split(":")[0] for line in lines] == ["0", "1", "2", "3"]
    first, second = lines[0].split()[1], lines[3].split()[1]
    assert first != second
    (job,) = pods.jobs("place")
    nodes = testbed.run("squeue", "-h", "-j", job, "-o", "%N").stdout.strip()
    assert [line.split(": ", 1)[1] for line in lines] == [
        f"{first} 4 0 1 it's {nodes} 2 0 0", f"{first} 4 0 1 it's {nodes} 2 0 1",
        f"{second} 4 2 3 it's {nodes} 2 1 0", f"{second} 4 2 3 it's {nodes} 2 1 1",
    ]  # fmt: skip
    helper_log = pods.kubectl("logs", "place", "-c", "helper").split()
    assert helper_log[:2] == [first, "0"]
    assert pods.kubectl("exec", "place", "-c", "main", "--", "ls", "/work").split() == ["0", "1"]
    pods.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "go"}, "data": {"go": "x"}})
    pods.kubectl("annotate", "pod", "place", "touched=now")
    pods.wait_phase("place", "Failed", seconds=180)
    # srun's rule: the highest exit code of any task.
    assert pods.terminated("place", "main")["exitCode"] == 6


def test_ranks_are_asked_to_end_before_they_are_killed(pods: Pods, agent: Agent, testbed: Testbed) -> None:
    script = "trap 'echo rank $SLURM_PROCID ends; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    pod = ranks("ended", agent, "sh", "-c", script, image=BUSYBOX, nodes="2", ntasks_per_node="1", mpi="none")
    pod["spec"]["terminationGracePeriodSeconds"] = 30
    pod["metadata"]["finalizers"] = ["slurmlet.io/test"]
    pods.apply(pod)
    wait_until(
        "both ranks to be up",
        lambda: pods.status("ended").get("phase") == "Running" and pods.kubectl("logs", "ended").count("up") == 2,
    )
    pods.kubectl("delete", "pod", "ended", "--wait=false")
    pods.wait("ended", "to end", lambda s: s["containerStatuses"][0]["state"].get("terminated"), seconds=90)
    log = pods.kubectl("logs", "ended")
    assert sorted(re.findall(r"rank \d ends", log)) == ["rank 0 ends", "rank 1 ends"]
    assert pods.terminated("ended")["exitCode"] == 5
    pods.kubectl("patch", "pod", "ended", "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    pods.wait_gone("ended")


ALONE = {
    "mpich-pmix": ("mpi-check-mpich", "pmix", "MPICH", "pmi2"),
    "mpich-none": ("mpi-check-mpich", "none", "MPICH", "pmi2"),
    "openmpi-pmi2": ("mpi-check-openmpi", "pmi2", "Open MPI", "pmix"),
    "openmpi-none": ("mpi-check-openmpi", "none", "Open MPI", "pmix"),
}


def test_ranks_that_do_not_find_each_other_are_told(pods: Pods, agent: Agent) -> None:
    pods.apply(
        *(ranks(name, agent, program, "20", nodes="2", ntasks="2", mpi=mpi) for name, (program, mpi, *_) in ALONE.items()),
        ranks("refused", agent, "true", nodes="2", srun_args="--task-prolog=/bin/true"),
    )  # fmt: skip
    for name, (_, _, library, instead) in ALONE.items():
        told = wait_until(
            f"the event RanksAlone of {name}",
            lambda name=name: [event for event in pods.events(name) if event["reason"] == "RanksAlone"],
            seconds=PULL_SECONDS,
        )
        assert library in told[0]["message"]
        assert f"slurmlet.io/mpi: {instead}" in told[0]["message"]
    for name in ALONE:
        pods.wait_phase(name, "Failed", seconds=90)
        assert pods.terminated(name)["exitCode"] == 2  # the program's own word for a world that is too small
    assert pods.wait_phase("refused", "Failed")["reason"] == "SlurmPolicyDenied"
    assert pods.jobs("refused") == []
