"""What a pod means, with kubectl, a real API server and its controllers, Slurm and Apptainer: the kubelet's rules.

All pods of the page are made at once, and each test looks at what became of its own. Names begin with the line of the
first-class node's checklist that they show: 18 to 27, 30 to 34 and 36 here, 28, 29 and 35 in `test_pods`, 37 to 44 in
`test_volumes`, a real time limit (31) in `test_long`.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.slurm_plugin.podschema import STORED, outcomes, trim

from .agents import Agent
from .pods import SMALL, Manifest, Pods, make_pods, manifest, placed
from .podwatch import PodWatch, wrongs
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("agent", ["ssh"], indirect=True, scope="session")]
FOREVER = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done")
SLOW = 120.0


def sh(script: str) -> list[str]:
    """A container's command; a ``$`` stays a ``$``."""
    return ["sh", "-c", script.replace("$(", "$$(")]


def part(name: str, script: str, **fields: Any) -> Manifest:
    """One container."""
    return {"name": name, "image": "busybox:1.36", "command": sh(script), "resources": {}} | fields


def probe(script: str, **fields: Any) -> Manifest:
    return {"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "timeoutSeconds": 10} | fields


def pod_of(agent: Agent, name: str, *containers: Manifest, inits: tuple[Manifest, ...] = (), **spec: Any) -> Manifest:
    """A pod of several containers that share the volume ``shared`` at /shared."""
    made = manifest(name, agent, "true")
    mounts = [{"name": "shared", "mountPath": "/shared"}]
    for each in (*containers, *inits):
        each.setdefault("volumeMounts", mounts)
    made["spec"] |= {"containers": list(containers), "volumes": [{"name": "shared", "emptyDir": {}}], **spec}
    if inits:
        made["spec"]["initContainers"] = list(inits)
    return made


def single(agent: Agent, name: str, script: str, *, spec: Manifest | None = None, **container: Any) -> Manifest:
    return pod_of(agent, name, part("main", script, **container), **(spec or {}))


def template(agent: Agent, script: str, labels: Manifest | None = None, **container: Any) -> Manifest:
    """The pod template of a controller."""
    made = manifest("unused", agent, *sh(script), **container)
    return {"metadata": {"labels": labels or {}}, "spec": made["spec"] | placed(agent)}


def pods_of_the_page(agent: Agent) -> list[Manifest]:
    """Every pod that is looked at below and needs nothing else, one line of the checklist after the other."""
    always, on_failure = {"restartPolicy": "Always"}, {"restartPolicy": "OnFailure"}
    ready = "touch /shared/ready; trap 'exit 0' TERM; while :; do sleep 0.2; done"
    stays = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
    ordered = "trap 'sleep 1; echo NAME >> /shared/order; exit 0' TERM; while :; do sleep 0.2; done"
    return [
        single(agent, "succeeds", "sleep 5"),
        single(agent, "always", "exit 3", spec=always),
        single(agent, "onfailure", "n=$(cat /shared/n || echo 0); echo $((n + 1)) > /shared/n; test $n -ge 1 || exit 5",
               spec=on_failure),
        single(agent, "badimage", stays, image="no-such-image:1"),
        pod_of(
            agent, "initfails", part("main", "true"),
            inits=(part("first", "echo 1 >> /shared/o"), part("second", "exit 9"), part("third", "true")),
        ),
        pod_of(
            agent, "sidecar",
            part("main", "test -e /shared/side; sleep 4; cat /shared/starts"),
            inits=(part("side", "touch /shared/side; echo x >> /shared/starts; "
                        "test $(wc -l < /shared/starts) -ge 2 || exit 1; " + stays, restartPolicy="Always"),),
        ),
        single(agent, "startup", "sleep 6; " + ready, resources=SMALL, startupProbe=probe("test -e /shared/ready", failureThreshold=60),
               livenessProbe=probe("test -e /shared/ready", failureThreshold=1)),
        single(agent, "liveness", "touch /shared/ok; sleep 2; rm /shared/ok; " + stays, spec=on_failure,
               livenessProbe=probe("test -e /shared/ok", failureThreshold=2)),
        single(agent, "readiness", ready, readinessProbe=probe("test -e /shared/ready && ! test -e /shared/busy"),
               spec={"readinessGates": [{"conditionType": "example.com/approved"}]}),
        pod_of(
            agent, "ends", part("main", ordered.replace("NAME", "main"),
                                lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /shared/order"]}}}),
            inits=(part("side", ordered.replace("NAME", "side").replace("exit", "cat /shared/order > /dev/termination-log; exit"),
                        restartPolicy="Always"),),
            terminationGracePeriodSeconds=60,
        ),
        single(agent, "shortened", "trap '' TERM; while :; do sleep 0.2; done", spec={"terminationGracePeriodSeconds": 600}),
        single(agent, "evicted", stays, spec={"terminationGracePeriodSeconds": 600}),
        single(agent, "deadline", stays, spec={"activeDeadlineSeconds": 4}),
        single(agent, "message", "printf 'my last words' > /dev/termination-log; exit 1"),
        single(agent, "fallback", "echo only the log; exit 1", terminationMessagePolicy="FallbackToLogsOnError"),
        single(agent, "hook", stays, spec=always,
               lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "exit 4"]}}}),
        single(agent, "killed", stays),
        single(agent, "patient", "trap 'sleep 9; printf done > /dev/termination-log; exit 7' TERM; "
               "while :; do sleep 0.2; done", spec={"terminationGracePeriodSeconds": 60}),
    ]  # fmt: skip


def controllers_of_the_page(agent: Agent) -> list[Manifest]:
    """A Job, a Deployment… each: what the control plane makes of our pods' ends."""
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    batch = {"apiVersion": "batch/v1", "kind": "Job"}
    return [
        batch | {"metadata": {"name": "backoff"}, "spec": {"backoffLimit": 1, "template": template(agent, "exit 1")}},
        batch | {"metadata": {"name": "policy"}, "spec": {
            "backoffLimit": 6, "podFailurePolicy": {"rules": [rule]}, "template": template(agent, "exit 42")}},
        batch | {"metadata": {"name": "indexed"}, "spec": {
            "completions": 2, "parallelism": 2, "completionMode": "Indexed",
            "template": template(agent, "test \"$HOSTNAME\" = \"indexed-$JOB_COMPLETION_INDEX\"")}},
        batch | {"metadata": {"name": "withside"}, "spec": {"template": _with_sidecar(template(agent, "sleep 1"))}},
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cron"}, "spec": {
            "schedule": "* * * * *", "jobTemplate": {"spec": {"template": template(agent, "true")}}}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": _always(template(agent, FOREVER[2], {"app": "web"}))}},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
            "replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": _always(template(agent, FOREVER[2], {"app": "db"}))}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "readiness"}, "spec": {
            "selector": {"app": "readiness"}, "ports": [{"port": 80}]}},
    ]  # fmt: skip


def _with_sidecar(made: Manifest) -> Manifest:
    made["spec"]["initContainers"] = [part("side", FOREVER[2], restartPolicy="Always")]
    return made


def _always(made: Manifest) -> Manifest:
    del made["spec"]["restartPolicy"]
    return made


@pytest.fixture(scope="module")
def page(testbed: Testbed, agent: Agent) -> Iterator[tuple[Pods, PodWatch]]:
    """All of them, running, and a watch of them."""
    namespaces = make_pods(testbed, agent)
    pods = next(namespaces)
    with PodWatch.of(testbed, pods.namespace) as watch:
        made = pods_of_the_page(agent)
        for pod in made:
            pod["metadata"]["labels"] = {"app": pod["metadata"]["name"]}
        pods.apply(*made, *controllers_of_the_page(agent))
        yield pods, watch
    next(namespaces, None)


@pytest.fixture
def pods(page: tuple[Pods, PodWatch]) -> Pods:
    return page[0]


@pytest.fixture
def watch(page: tuple[Pods, PodWatch]) -> PodWatch:
    return page[1]


def running(pods: Pods, name: str, container: str = "main") -> None:
    pods.wait(name, f"to run {container}", lambda s: _state(s, container, "running"), seconds=SLOW)


def _state(status: Manifest, container: str, state: str) -> Any:
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return next((each["state"].get(state) for each in statuses if each["name"] == container), None)


# 18, 20, 21: phases, restarts


def test_18_pending_running_succeeded(pods: Pods, watch: PodWatch) -> None:
    pods.wait_phase("succeeds", "Succeeded", seconds=SLOW)
    phases = [version["status"]["phase"] for version in watch.versions("succeeds")]
    assert sorted(set(phases), key=phases.index) == ["Pending", "Running", "Succeeded"]


def test_20_21_restart_policy_always_backs_off_visibly(pods: Pods, watch: PodWatch) -> None:
    status = pods.wait("always", "to have restarted", lambda s: s["containerStatuses"][0]["restartCount"], seconds=SLOW)
    first = next(main for main in watch.states("always") if main["lastState"] and "waiting" in main["state"])
    assert first["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert first["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=main")
    assert first["lastState"]["terminated"]["exitCode"] == 3
    assert status["phase"] == "Running"
    pods.wait_event("always", "BackOff", seconds=SLOW)


def test_20_restart_policy_on_failure_restarts_until_success(pods: Pods) -> None:
    status = pods.wait_phase("onfailure", "Succeeded", seconds=SLOW)
    (main,) = status["containerStatuses"]
    assert main["restartCount"] == 1
    assert main["lastState"]["terminated"]["exitCode"] == 5


# 22: what can be edited of a live pod


def test_22_edited_images_and_deadlines_are_taken_up_by_waiting_and_running_pods(pods: Pods) -> None:
    def backs_off(status: Manifest) -> bool:
        return (_state(status, "main", "waiting") or {}).get("reason") == "ImagePullBackOff"

    pods.wait("badimage", "to be in ImagePullBackOff", backs_off, seconds=SLOW)
    pods.kubectl("set", "image", "pod/badimage", "main=busybox:1.36")
    running(pods, "badimage")
    other = "docker.io/library/busybox:1.36"
    pods.kubectl("set", "image", "pod/badimage", f"main={other}")

    def restarted(status: Manifest) -> bool:
        return bool(_state(status, "main", "running")) and status["containerStatuses"][0]["restartCount"] == 1

    (main,) = pods.wait("badimage", "to run the other image", restarted, seconds=SLOW)["containerStatuses"]
    assert main["image"] == other
    assert "terminated" in main["lastState"]
    pods.wait_event("badimage", "Killing", "Container main definition changed, will be restarted", seconds=SLOW)
    pods.kubectl("patch", "pod", "badimage", "--patch", '{"spec":{"activeDeadlineSeconds":1}}')
    assert pods.wait_phase("badimage", "Failed", seconds=SLOW)["reason"] == "DeadlineExceeded"


def test_a_resize_is_answered_as_infeasible_and_may_be_taken_back(pods: Pods) -> None:
    def pending() -> Manifest | None:
        found = pods.status("startup")["conditions"]
        return next((each for each in found if each["type"] == "PodResizePending"), None)

    def resize(cpu: str) -> None:
        change = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}]}}
        pods.kubectl("patch", "pod", "startup", "--subresource=resize", f"--patch={json.dumps(change)}")

    running(pods, "startup")
    resize("2")
    condition = wait_until("PodResizePending", pending, seconds=SLOW)
    assert (condition["status"], condition["reason"]) == ("True", "Infeasible")
    assert condition["message"].startswith("spec.containers[0].resources: ")
    assert pods.container("startup")["resources"]["requests"]["cpu"] == SMALL["requests"]["cpu"]
    resize("1")
    wait_until("no resize to be pending", lambda: pending() is None, seconds=SLOW)


# 23, 24: init and sidecar containers


def test_23_a_failed_init_container_fails_the_pod_and_starts_nothing_more(pods: Pods) -> None:
    status = pods.wait_phase("initfails", "Failed", seconds=SLOW)
    first, second, third = status["initContainerStatuses"]
    assert first["state"]["terminated"]["exitCode"] == 0
    assert second["state"]["terminated"]["exitCode"] == 9
    assert third["state"]["waiting"]["reason"] == "PodInitializing"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"


def test_24_a_sidecar_starts_first_is_restarted_and_does_not_keep_the_pod(pods: Pods) -> None:
    status = pods.wait_phase("sidecar", "Succeeded", seconds=SLOW)
    (side,) = status["initContainerStatuses"]
    assert side["restartCount"] >= 1
    assert "terminated" in side["state"]
    assert pods.kubectl("logs", "sidecar", "--container=main").split() == ["x", "x"]


def test_24_a_jobs_sidecar_does_not_keep_it(pods: Pods) -> None:
    pods.kubectl("wait", "job/withside", "--for=condition=complete", "--timeout=55s")


# 25, 26: probes and readiness


def test_25_a_startup_probe_holds_the_others_back(pods: Pods) -> None:
    pods.wait("startup", "to be ready", lambda s: s.get("containerStatuses", [{}])[0].get("ready"), seconds=SLOW)
    assert pods.container("startup")["restartCount"] == 0

    def unhealthy() -> list[Manifest]:
        return [event for event in pods.events("startup") if event["reason"] == "Unhealthy"]

    wait_until("failures of the startup probe to be counted", lambda: any(e["count"] > 1 for e in unhealthy()))
    assert [event["message"].rstrip() for event in unhealthy()] == ["Startup probe failed:"], (
        "one event for all of them"
    )


def test_25_a_failed_liveness_probe_restarts_the_container_though_it_ends_with_0(pods: Pods) -> None:
    pods.wait("liveness", "to be restarted", lambda s: s["containerStatuses"][0]["restartCount"] >= 1, seconds=SLOW)
    pods.wait_event("liveness", "Unhealthy", "Liveness probe failed", seconds=SLOW)
    pods.wait_event("liveness", "Killing", "failed liveness probe, will be restarted", seconds=SLOW)
    assert pods.container("liveness")["lastState"]["terminated"]["exitCode"] == 0


def test_26_readiness_follows_gates_and_probe_and_endpoint_slices_follow_it(pods: Pods) -> None:
    def ready() -> str:
        conditions = pods.status("readiness").get("conditions", [])
        return next((f"{c['status']} {c.get('reason', '')}".strip() for c in conditions if c["type"] == "Ready"), "")

    def endpoint() -> bool | None:
        words = ("get", "endpointslices", "--selector=kubernetes.io/service-name=readiness", "--output=json")
        slices = json.loads(pods.kubectl(*words))["items"]
        found = [each["conditions"]["ready"] for one in slices for each in one["endpoints"] or ()]
        return found[0] if found else None

    wait_until("the gate to be all that is missing", lambda: ready() == "False ReadinessGatesNotReady", seconds=SLOW)
    condition = {"type": "example.com/approved", "status": "True"}
    patch = json.dumps({"status": {"conditions": [condition]}})
    pods.kubectl("patch", "pod", "readiness", "--subresource=status", "--type=strategic", f"--patch={patch}")
    wait_until("Ready", lambda: ready() == "True", seconds=SLOW)
    wait_until("its endpoint to be ready", lambda: endpoint() is True, seconds=SLOW)
    pods.kubectl("exec", "readiness", "--", "touch", "/shared/busy")
    wait_until("the probe to have failed", lambda: ready() == "False ContainersNotReady", seconds=SLOW)
    wait_until("its endpoint not to be ready", lambda: endpoint() is False, seconds=SLOW)
    pods.kubectl("exec", "readiness", "--", "rm", "/shared/busy")
    wait_until("Ready again", lambda: ready() == "True", seconds=SLOW)
    wait_until("its endpoint to be ready again", lambda: endpoint() is True, seconds=SLOW)
    patch = json.dumps({"status": {"conditions": [condition | {"status": "False"}]}})
    pods.kubectl("patch", "pod", "readiness", "--subresource=status", "--type=strategic", f"--patch={patch}")
    wait_until("its endpoint not to be ready", lambda: endpoint() is False, seconds=SLOW)


# 27, 28, 29: ends


def test_27_pre_stop_then_term_in_order_with_the_sidecar_last(pods: Pods, watch: PodWatch) -> None:
    running(pods, "ends")
    pods.kubectl("delete", "pod", "ends", "--timeout=100s")
    side = watch.states("ends", "side")[-1]
    assert side["state"]["terminated"]["message"].split() == ["pre", "main", "side"]


def test_27_a_grace_period_longer_than_slurms_kill_wait_is_kept(pods: Pods, watch: PodWatch) -> None:
    running(pods, "patient")
    pods.kubectl("delete", "pod", "patient", "--timeout=100s")
    ending = watch.states("patient")[-1]["state"]["terminated"]
    assert (ending["exitCode"], ending["message"]) == (7, "done")


def test_27_a_pod_is_deleted_cleanly_while_queued_and_while_starting(pods: Pods, testbed: Testbed) -> None:
    queued = manifest("queued", pods.agent, *FOREVER)
    queued["metadata"]["annotations"]["slurmlet.io/dependency"] = "afterany:always"  # which runs for ever
    starting = manifest("starting", pods.agent, *FOREVER)
    pods.apply(queued, starting)
    jobs = wait_until("their jobs", lambda: _both(pods.jobs("queued"), pods.jobs("starting")), seconds=SLOW)
    pods.kubectl("delete", "pod", "queued", "starting", "--timeout=100s")
    assert not testbed.run("squeue", "-h", "-t", "pending,running", "-j", ",".join(jobs)).stdout.split()


def _both(first: list[str], second: list[str]) -> list[str]:
    return [*first, *second] if first and second else []


def test_27_a_second_deletion_shortens_the_grace_and_the_pod_is_gone_ten_seconds_after_it(pods: Pods) -> None:
    running(pods, "shortened")
    pods.kubectl("delete", "pod", "shortened", "--wait=false")
    event = pods.wait_event("shortened", "Killing", seconds=SLOW)
    assert event["involvedObject"]["fieldPath"] == "spec.containers{main}"
    began = time.monotonic()
    pods.kubectl("delete", "pod", "shortened", "--grace-period=3", "--timeout=100s")
    assert 2 <= time.monotonic() - began <= 3 + 10


def test_27_an_eviction_is_a_deletion(pods: Pods) -> None:
    running(pods, "evicted")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "evicted"}}
    path = f"/api/v1/namespaces/{pods.namespace}/pods/evicted/eviction"
    pods.kubectl("create", f"--raw={path}", "--filename=-", stdin=json.dumps(eviction))
    pods.wait_gone("evicted")


# 30, 31: deadlines and other ends


def test_30_active_deadline_is_deadline_exceeded(pods: Pods) -> None:
    status = pods.wait_phase("deadline", "Failed", seconds=SLOW)
    assert status["reason"] == "DeadlineExceeded"
    assert status["message"] == "Pod was active on the node longer than the specified deadline"


def test_31_a_killed_runner_is_neither_running_for_ever_nor_a_success(pods: Pods, testbed: Testbed) -> None:
    running(pods, "killed")
    (job,) = pods.jobs("killed")
    testbed.run("scancel", "--batch", "--signal=KILL", job)
    status = pods.wait_phase("killed", "Failed", seconds=SLOW)
    assert status["reason"] == "SlurmJobFailed"
    assert pods.terminated("killed")["exitCode"] == 137


# 32: last words


def test_32_termination_messages_come_from_the_file_or_the_log(pods: Pods) -> None:
    for name, words in (("message", "my last words"), ("fallback", "only the log\n")):
        pods.wait_phase(name, "Failed", seconds=SLOW)
        assert pods.terminated(name)["message"] == words


def test_a_failed_post_start_hook_kills_the_container(pods: Pods) -> None:
    pods.wait_event("hook", "FailedPostStartHook", seconds=SLOW)
    pods.wait("hook", "to be restarted", lambda s: s["containerStatuses"][0]["restartCount"] >= 1, seconds=SLOW)


# 33, 34: controllers


def job_condition(pods: Pods, name: str) -> Manifest | None:
    conditions = json.loads(pods.kubectl("get", "job", name, "--output=json"))["status"].get("conditions", [])
    return next((c for c in conditions if c["type"] in {"Complete", "Failed"} and c["status"] == "True"), None)


@pytest.mark.parametrize(
    ("name", "kind", "reason", "failed"),
    [("backoff", "Failed", "BackoffLimitExceeded", 2), ("policy", "Failed", "PodFailurePolicy", 1),
     ("indexed", "Complete", "CompletionsReached", 0)],
)  # fmt: skip
def test_33_a_job_acts_on_its_pods_ends(pods: Pods, name: str, kind: str, reason: str, failed: int) -> None:
    condition = wait_until(f"job {name} to end", lambda: job_condition(pods, name), seconds=SLOW)
    assert (condition["type"], condition["reason"]) == (kind, reason)
    status = json.loads(pods.kubectl("get", "job", name, "--output=json"))["status"]
    assert status.get("failed", 0) == failed


def test_34_a_deployment_rolls_out_twice(pods: Pods) -> None:
    pods.kubectl("rollout", "status", "deployment/web", "--timeout=55s")
    change = {"spec": {"template": {"metadata": {"annotations": {"example.com/again": "yes"}}}}}
    pods.kubectl("patch", "deployment", "web", f"--patch={json.dumps(change)}")
    pods.kubectl("rollout", "status", "deployment/web", "--timeout=55s")


def test_34_a_stateful_set_starts_its_pods_in_order(pods: Pods, watch: PodWatch) -> None:
    pods.kubectl("rollout", "status", "statefulset/db", "--timeout=55s")
    created = [pods.get(f"db-{n}") for n in (0, 1)]
    ready = next(v for v in watch.versions("db-0") if _ready(v["status"]))
    assert created[1] is not None
    assert created[1]["metadata"]["creationTimestamp"] >= _ready(ready["status"])


def _ready(status: Manifest) -> str:
    conditions = status.get("conditions", [])
    return next((c["lastTransitionTime"] for c in conditions if c["type"] == "Ready" and c["status"] == "True"), "")


def test_34_a_cron_job_completes_a_job(pods: Pods) -> None:
    def succeeded() -> bool:
        jobs = json.loads(pods.kubectl("get", "jobs", "--output=json"))["items"]
        mine = [job for job in jobs if job["metadata"]["name"].startswith("cron-")]
        return any(job["status"].get("succeeded") for job in mine)

    wait_until("a job of the CronJob to complete", succeeded, seconds=180, every=0.5)
    pods.kubectl("delete", "cronjob", "cron", "--wait=false")


# 19, 36: statuses and events


def test_36_events_name_their_container(pods: Pods) -> None:
    pods.wait_phase("succeeds", "Succeeded", seconds=SLOW)
    for reason in ("Pulled", "Created", "Started"):
        event = pods.wait_event("succeeds", reason, seconds=SLOW)
        assert event["involvedObject"]["fieldPath"] == "spec.containers{main}"
        assert event["source"] == {"component": "kubelet", "host": pods.agent.node}
    pods.wait_event("sidecar", "Started", about="spec.initContainers{side}")


def test_19_no_status_of_any_pod_ever_went_back(pods: Pods, watch: PodWatch) -> None:
    names = {pod["metadata"]["name"] for pod in pods_of_the_page(pods.agent)}
    seen = {name: wrongs(watch.versions(name)) for name in names}
    assert not {name: wrong for name, wrong in seen.items() if wrong}
    assert all(watch.versions(name) for name in names)


# The schema


def test_the_live_api_servers_schema_has_no_field_that_is_ignored(pods: Pods, testbed: Testbed) -> None:
    live = trim(json.loads(testbed.kubectl("get", "--raw", "/openapi/v3/api/v1")))
    assert not {path: outcome for path, outcome in outcomes(live).items() if outcome.startswith("IGNORED")}
    assert live == json.loads(STORED.read_text("utf-8")), "renew the stored schema: see podschema.py"
