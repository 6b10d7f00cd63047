"""What the contract carries arrives as it was sent."""

import json
from typing import Any

import pytest

from sidecar import wire
from sidecar.codec import decode, encode, schema
from slurm_plugin.cluster import Cluster
from slurm_plugin.contract import (
    ContainerUsage,
    LogOptions,
    PodContent,
    PodReport,
    PodUsage,
    ProbeUsage,
    Reachable,
    Report,
    Snapshot,
    VolumeFile,
)  # fmt: skip
from slurm_plugin.job import ExitCode, JobFlag, JobId, JobState, JobStatus, PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.runner.plan import Edition, EnvEntry
from slurm_plugin.runner.state import ContainerState, Event, RunnerState, Running, Terminated, Waiting
from tests.vkubelet.fakes import cluster


def round_trip(value: object, kind: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value, kind))), kind)


def test_a_cluster_with_gpus_by_type_arrives() -> None:
    assert round_trip(cluster(), Cluster) == cluster()


STATE = RunnerState(
    format=1, version=3, job_id="7", restart=1, node="cn1", pod_ips=("10.0.0.5",), host_ips=(), started_at=1.5, finished_at=0,
    final=False, terminating=True, reason="", message="ü", events=(Event(1, "Normal", "Pulled", "m", "c", 2.0),),
    containers=(
        ContainerState("a", "app", Running(1.0), Terminated(3, 0, "Error", "", 1.0, 2.0), 2, True, False, "sha256:1"),
        ContainerState("b", "init", Waiting("PodInitializing", ""), None, 0, False, False, ""),
    ),
    edition=Edition((("a", "busybox"), ("b", "alpine")), 60),
)  # fmt: skip
JOB = JobStatus(
    JobId("7"),
    JobState.CANCELLED,
    frozenset({JobFlag.COMPLETING, JobFlag.REQUEUED}),
    exit_code=ExitCode(1, 15),
    end_time=9,
)


@pytest.mark.parametrize("runner", [None, STATE])
@pytest.mark.parametrize("job", [None, JOB])
def test_every_report_arrives(job: JobStatus | None, runner: RunnerState | None) -> None:
    report = PodReport(PodUid("u"), "ns", "a", job and job.job_id, job, runner, absent=True)
    assert round_trip(report, Report) == report
    assert round_trip(Snapshot((report, report)), Report) == Snapshot((report, report))


def test_usage_arrives() -> None:
    usage = (
        PodUsage(PodUid("u"), 1.5, (ContainerUsage("c", 1.0, 2**62, 3),), (ProbeUsage("c", "Startup", "failed", 1),)),
    )
    assert round_trip(usage, tuple[PodUsage, ...]) == usage


def test_content_arrives() -> None:
    content = PodContent(
        env={"c": (EnvEntry("A", "$(B)", True, ""),)},
        volumes={"v": (VolumeFile("d/f", bytes(range(256)), 0o400),), "w": ()},
        jobs={"other": "7"},
    )
    assert round_trip(content, PodContent) == content


@pytest.mark.parametrize("report", [Reachable(None), Reachable("away"), Snapshot(())])
def test_the_other_reports_arrive(report: Report) -> None:
    assert round_trip(wire.Line("e", 7, report), wire.Line) == wire.Line("e", 7, report)


def test_a_pod_arrives_with_the_fields_that_have_no_name_here() -> None:
    pod = {
        "metadata": {"name": "a", "namespace": "b", "uid": "c", "annotations": {"x/y": "z"}},
        "spec": {
            "containers": [{"name": "main", "image": "i", "unheardOf": {"deep": [1]}}],
            "terminationGracePeriodSeconds": 3,
        },
    }
    sent = wire.Submit(Pod.model_validate(pod), PodContent())
    assert encode(round_trip(sent, wire.Submit), wire.Submit) == encode(sent, wire.Submit)
    assert round_trip(sent, wire.Submit).pod == sent.pod


def test_fields_of_another_version_are_left_out_and_missing_ones_have_their_default() -> None:
    assert decode({"follow": True, "colour": "red"}, LogOptions) == LogOptions(follow=True)


@pytest.mark.parametrize(
    "data", [None, [], "x", {"grace_seconds": "1"}, {"grace_seconds": True}, {"grace_seconds": 1.5}, {}]
)
def test_what_is_no_such_value_is_refused(data: object) -> None:
    with pytest.raises(ValueError):
        decode(data, wire.Terminate)


@pytest.mark.parametrize("data", [[None], [["a"]], [["a", "b", "c"]], [[["a"], "b"]], 7])
def test_what_is_no_mapping_is_refused(data: object) -> None:
    with pytest.raises(ValueError):
        decode({"jobs": data}, PodContent)


def test_every_part_of_the_wire_has_a_schema() -> None:
    for kind in (Cluster, wire.Submit, wire.Line, wire.LogRequest, wire.Open, PodContent, tuple[PodUsage, ...]):
        assert schema(kind)["type"] in {"object", "array"}
