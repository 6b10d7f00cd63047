"""What we send by interLink's wire, read as Go reads it: Kubernetes' own types are the judge of the pods, objects and
statuses in it, and no field may be one that the type does not have.

interLink's own module can't be fetched as one, so the outer types are written anew (``judge/main.go``) from its wire; that they
are the same shows in what its Go code wrote (``tests/sidecar/interlink/recorded``).
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.interlink import statuses
from sidecar.interlink.requests import creation, log_asked
from sidecar.interlink.wire import create_request, log_request, retrieved_pod
from slurm_plugin.cluster import Cluster, SlurmNode
from slurm_plugin.config import PodSettings
from slurm_plugin.contract import LogOptions
from slurm_plugin.job import JobState
from slurm_plugin.runner.plan import APP, INIT
from slurm_plugin.runner.state import Running, Waiting
from testbed.kubernetes.gobuild import build_program, find_go
from testbed.paths import Layout
from tests.sidecar.interlink.test_requests import UID, recorded
from tests.sidecar.interlink.test_statuses import container, ended, runner, told
from tests.sidecar.interlink.test_wire import CONTENT, POD

pytestmark = pytest.mark.e2e

Judge = Callable[[str, Any], Any]
SENT = POD.model_copy(update={"metadata": POD.metadata.model_copy(update={"uid": UID})})
NODE = SlurmNode(
    name="gn1", states=frozenset({"IDLE"}), cpus=16, cpus_allocated=0, memory_mib=64000, memory_allocated_mib=0, tmp_mib=0,
    gres={("gpu", "a100"): 4}, gres_allocated={}, features=frozenset(), partitions=frozenset({"gpu"}),
)  # fmt: skip
CLUSTER = Cluster(name="c", version="24.11.5", partitions=(), nodes=(NODE,))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Decodes a value into a type without tolerance; returns it as Go encodes it again, or fails with Go's words."""
    program = tmp_path_factory.mktemp("judge") / "judge"
    cache = Layout.from_environment().cache
    cache.mkdir(parents=True, exist_ok=True)
    build_program(find_go(cache), Path(__file__).with_name("judge"), ".", program, flags="-s -w")

    def judged(kind: str, value: Any) -> Any:
        line = json.dumps({"type": kind, "value": value}) + "\n"
        answer = json.loads(subprocess.run([program], input=line, capture_output=True, text=True, check=True).stdout)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    return judged


def test_the_judge_tells_a_field_that_a_type_does_not_have(judge: Judge) -> None:
    with pytest.raises(AssertionError, match='unknown field "imagee"'):
        judge("pod", {"spec": {"containers": [{"name": "a", "imagee": "b"}]}})
    with pytest.raises(AssertionError, match='unknown field "jid"|JID'):
        judge("created", {"PodUID": "u", "JIDs": "7"})


@pytest.mark.parametrize(
    ("name", "kind"),
    [("create", "retrieved"), ("requests", "request"), ("status", "pods"), ("delete", "pod"), ("logs", "logs")],
)
def test_what_interlinks_go_code_wrote_is_what_the_judges_types_write(judge: Judge, name: str, kind: str) -> None:
    written = recorded(name)
    again = judge(kind, written)
    if kind == "retrieved":  # a part that is a message of its own there, and of which nothing is known here
        again, written = (value | {"jobConfig": None} for value in (again, written))
    assert again == written


@pytest.mark.parametrize(("make", "kind"), [(create_request, "request"), (retrieved_pod, "retrieved")])
def test_a_creation_that_we_send_is_read_by_go_and_comes_back_as_it_was(judge: Judge, make: Any, kind: str) -> None:
    sent = make(SENT, CONTENT)
    pod, content = creation(judge(kind, sent))
    expected, resolved = creation(sent)
    assert content == resolved
    assert pod.spec == expected.spec
    assert pod.metadata.uid == expected.metadata.uid


@pytest.mark.parametrize(
    "answer",
    [
        told(JobState.PENDING, None),
        told(JobState.CANCELLED, None),
        told(JobState.RUNNING, runner(container("main", APP, Running(1.0)), final=False)),
        told(JobState.FAILED, runner(container("first", INIT, ended(1)), container("main", APP, Waiting("", "")), final=True)),
        told(JobState.COMPLETED, runner(container("first", INIT, ended(0)), container("main", APP, ended(0)), final=True)),
    ],
)  # fmt: skip
def test_every_status_that_we_answer_is_one_of_kubernetes_own(judge: Judge, answer: Any) -> None:
    (read,) = judge("status", [answer])
    assert (read["UID"], read["JID"]) == (answer["UID"], answer["JID"])
    for ours, theirs in zip(answer["containers"], read["containers"], strict=True):
        assert theirs["name"] == ours["name"]
        assert set(theirs["state"]) == set(ours["state"])


def test_the_small_answers_and_a_question_for_a_log_are_read_whole(judge: Judge) -> None:
    assert judge("created", statuses.created(UID, "7")) == {"PodUID": UID, "PodJID": "7"}
    question = log_request(SENT, "main", LogOptions(follow=True, since_time=1.5, limit_bytes=9))
    assert log_asked(judge("logs", question), now=9.0) == log_asked(question, now=9.0)
    for cluster in (CLUSTER, None):
        answer = statuses.ping(cluster, PodSettings().resources, None if cluster else "away")
        read = judge("ping", answer)
        assert read["status"] == answer["status"]
        assert (read["resources"] or {}).get("accelerators") == answer.get("resources", {}).get("accelerators")
