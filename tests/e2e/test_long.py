"""What takes minutes to show: begun with all other tests, looked at after them."""

import json
import time
from datetime import datetime
from typing import Any

import pytest

from .agents import Agent
from .pods import Pods
from .proxy import Proxy
from .testbed import Testbed
from .waiting import wait_until
from .waits import Wait, rejections

pytestmark = [pytest.mark.e2e, pytest.mark.last, pytest.mark.timeout(900)]

AWAY_SECONDS = 7 * 60  # a pod's default tolerations end after five minutes
STORM_SECONDS = 5 * 60
TOKEN_SECONDS = 570  # a token of ten minutes is renewed after eight


def test_a_requeued_job_restarts_its_containers_and_says_so(requeued: tuple[Pods, str]) -> None:
    pods, job = requeued

    def again(status: dict[str, Any]) -> bool:
        (container,) = status["containerStatuses"]
        return container["restartCount"] == 1 and "running" in container["state"]

    status = pods.wait("again", "to run again", again, seconds=400)
    assert (status["phase"], pods.jobs("again")) == ("Running", [job])
    ending = status["containerStatuses"][0]["lastState"]["terminated"]
    assert ending["exitCode"] != 0
    pods.wait_event("again", "SlurmRequeued")
    assert pods.kubectl("logs", "again").split() == ["begun"], "of this run"
    assert pods.kubectl("logs", "again", "--previous").split() == ["begun"]
    pods.kubectl("delete", "pod", "again", "--timeout=60s")


def test_31_a_job_at_its_own_time_limit_runs_pre_stop_and_term_before_it(timed: tuple[Pods, float]) -> None:
    pods, _ = timed
    status = pods.wait_phase("limited", "Failed", seconds=240)
    assert status["reason"] == "DeadlineExceeded"
    ending = pods.terminated("limited")
    assert (ending["exitCode"], ending["message"].split()) == (0, ["pre", "term"])
    lived = datetime.fromisoformat(ending["finishedAt"]) - datetime.fromisoformat(status["startTime"])
    assert 60 <= lived.total_seconds() <= 120


def test_an_agent_away_for_seven_minutes_costs_no_pod_and_no_job(
    agent_away: tuple[Wait, Agent], testbed: Testbed
) -> None:
    wait, agent = agent_away
    wait.rest(AWAY_SECONDS)
    taints = (testbed.get("node", agent.node) or {})["spec"]["taints"]
    assert ("node.kubernetes.io/unreachable", "NoExecute") in {(taint["key"], taint["effect"]) for taint in taints}
    assert "deletionTimestamp" in (wait.pods.get("impatient") or {})["metadata"], "evictions were never tried"
    agent.start()
    agent.wait_ready()
    wait.assert_untouched()
    wait.pods.wait_gone("impatient")
    wait.pods.kubectl("delete", "pod", "lasting", "--timeout=60s")


def test_slurm_away_for_seven_minutes_costs_no_pod_no_job_and_no_readiness(
    slurm_away: tuple[Wait, Agent, Proxy], testbed: Testbed
) -> None:
    wait, agent, proxy = slurm_away
    wait.rest(AWAY_SECONDS)
    conditions = {c["type"]: c for c in (testbed.get("node", agent.node) or {})["status"]["conditions"]}
    assert conditions["Ready"]["status"] == "True"
    assert conditions["SlurmReachable"]["status"] == "False"
    assert conditions["SlurmReachable"]["message"]
    wait.assert_untouched()
    proxy.join()
    wait_until("Slurm to be reachable again", lambda: _reachable(testbed, agent), seconds=90)
    wait.assert_untouched()
    wait.pods.kubectl("delete", "pod", "lasting", "--timeout=60s")


def _reachable(testbed: Testbed, agent: Agent) -> bool:
    node = testbed.get("node", agent.node) or {}
    return any(c["type"] == "SlurmReachable" and c["status"] == "True" for c in node["status"]["conditions"])


def test_a_deployment_that_slurm_rejects_submits_at_most_ten_times_in_five_minutes(
    storm: tuple[Pods, Agent, float, int],
) -> None:
    pods, _, began, before = storm
    time.sleep(max(0.0, began + STORM_SECONDS - time.monotonic()))
    submitted = rejections() - before
    assert 1 <= submitted <= 10
    names = pods.kubectl("get", "pods", "--output=name").split()
    assert len(names) == 5, "a pod was made in place of a rejected one"
    described = [pods.kubectl("describe", name).lower() for name in names]
    assert any("invalid account" in text for text in described)


def test_43_a_token_is_renewed_when_four_fifths_of_its_life_are_over(
    timed: tuple[Pods, float], testbed: Testbed
) -> None:
    pods, began = timed
    wait_until(
        "the token to be renewed",
        lambda: len(pods.kubectl("logs", "rotating").split()) >= 2,
        seconds=max(30.0, began + TOKEN_SECONDS - time.monotonic()),
        every=2,
    )
    lines = [line.split() for line in pods.kubectl("logs", "rotating", "--timestamps").splitlines()]
    (first, old), (second, new) = lines[:2]
    assert 440 <= (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds() <= 540
    assert old != new
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": new}}
    review = json.loads(testbed.kubectl("create", "--filename=-", "--output=json", stdin=json.dumps(body)))
    assert review["status"]["authenticated"]
    assert review["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["rotating"]
