"""GPUs as GRES: devices that stand in for them, and Slurm's own words for which of them a job has."""

import json
import re
from typing import Any

import pytest

from .agents import Agent, running
from .pods import Pods, manifest
from .testbed import Testbed

pytestmark = pytest.mark.e2e

SHOW = "echo $CUDA_VISIBLE_DEVICES; env | grep -c -E '_VISIBLE_DEVICES=|GPU_DEVICE_ORDINAL='; true"


def gpus(name: str, count: int, script: str = SHOW, **fields: Any) -> dict[str, Any]:
    resources = {"limits": {"nvidia.com/gpu": count}} if count else {}
    return {"name": name, "image": "busybox:1.36", "command": ["sh", "-c", script], "resources": resources} | fields


@pytest.fixture(scope="module")
def agent(testbed: Testbed) -> Any:
    yield from running(Agent(testbed, "ssh", index=16))


def test_the_jobs_gpus_are_shared_out_among_the_pods_containers(pods: Pods, agent: Agent, testbed: Testbed) -> None:
    pod = manifest("shared", agent)
    pod["metadata"]["annotations"] = {"slurmlet.io/partition": "gpu", "slurmlet.io/gpu-type": "a100"}
    pod["spec"]["initContainers"] = [gpus("init", 3)]
    pod["spec"]["containers"] = [gpus("two", 2), gpus("none", 0), gpus("one", 1)]
    ranks = manifest("ranks", agent)
    ranks["metadata"]["annotations"] = {
        "slurmlet.io/partition": "gpu", "slurmlet.io/ntasks": "2", "slurmlet.io/gpus-per-task": "1",
        "slurmlet.io/label-ranks": "true",
    }  # fmt: skip
    ranks["spec"]["containers"] = [
        gpus("each", 2, "echo $CUDA_VISIBLE_DEVICES"),
        gpus("other", 1, "echo $CUDA_VISIBLE_DEVICES"),
    ]
    # Slurm's own choice of a device for each rank; and ranks on two nodes that each have theirs.
    bound, spread = (manifest(name, agent) for name in ("bound", "spread"))
    bound["metadata"]["annotations"] = ranks["metadata"]["annotations"] | {
        "slurmlet.io/srun-args": "--gpu-bind=single:1"
    }
    del bound["metadata"]["annotations"]["slurmlet.io/gpus-per-task"]
    bound["spec"]["containers"] = [gpus("each", 2, "echo $CUDA_VISIBLE_DEVICES")]
    spread["metadata"]["annotations"] = ranks["metadata"]["annotations"] | {
        "slurmlet.io/nodes": "2", "slurmlet.io/ntasks": "4",
    }  # fmt: skip
    spread["spec"]["containers"] = [gpus("each", 2, "echo $SLURMD_NODENAME/$CUDA_VISIBLE_DEVICES")]
    pods.apply(pod, ranks, bound, spread)
    for name in ("shared", "ranks", "bound", "spread"):
        pods.wait_phase(name, "Succeeded", "Failed", seconds=240)
        assert pods.status(name)["phase"] == "Succeeded"

    def visible(name: str, container: str) -> list[str]:
        return pods.kubectl("logs", name, "-c", container).splitlines()[0].split(",")

    init, two, one = (visible("shared", name) for name in ("init", "two", "one"))
    assert (len(two), len(one)) == (2, 1)
    assert sorted(two + one) == sorted(init), "of the same three devices, none is two containers'"
    assert pods.kubectl("logs", "shared", "-c", "none").splitlines() == ["", "0"]
    (job,) = pods.jobs("shared")
    shown = json.loads(testbed.run("scontrol", "show", "job", job, "--json").stdout)["jobs"][0]
    assert shown["tres_per_node"] == "gres/gpu:a100:3"

    def by_rank(name: str) -> dict[str, str]:
        return dict(line.split(": ") for line in pods.kubectl("logs", name, "-c", "each").splitlines())

    each = by_rank("ranks")
    (other,) = visible("ranks", "other")
    assert set(each) == {"0", "1"}
    assert len({*each.values(), other}) == 3, "each rank has one of its own, and the other container too"

    # Where the other device is hidden, a rank's own is the first.
    hidden = re.search(r"ConstrainDevices += yes", testbed.run("scontrol", "show", "config").stdout)
    assert len(set(by_rank("bound").values())) == (1 if hidden else 2), "each rank has one of the two"
    spread_out = sorted(by_rank("spread").values())
    assert len(set(spread_out)) == 4, "none is two ranks'"
    assert [where.partition("/")[0] for where in spread_out] == ["gn1", "gn1", "gn2", "gn2"]
    assert not any("," in where for where in spread_out)


def test_an_example_with_a_gpu_runs(pods: Pods) -> None:
    pods.run_example("gpu.yaml", "gpu")
    pods.wait_phase("gpu", "Succeeded", seconds=120)
    assert "1 GPU" in pods.kubectl("logs", "gpu")
