"""The main job, on real parts: kubectl apply → virtual node → Slurm job → logs and exit code, over every Host."""

import json
import re
from typing import Any

import pytest

from .agents import Agent
from .pods import Pods, manifest, placed
from .runtimes import own_words
from .testbed import Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e


def test_a_pod_runs_as_a_job_of_an_ordinary_user_and_succeeds(pods: Pods, testbed: Testbed) -> None:
    pods.run("hello", "sh", "-c", "echo out; echo err >&2; id -un; echo job $SLURM_JOB_ID")
    status = pods.wait_phase("hello", "Succeeded")
    (job,) = pods.jobs("hello")
    log = pods.kubectl("logs", "hello").splitlines()
    assert set(log) == {"out", "err", "alice", f"job {job}"}
    ending = pods.terminated("hello")
    assert (ending["exitCode"], ending["reason"]) == (0, "Completed")
    assert ending["startedAt"] <= ending["finishedAt"]
    assert status["podIP"]
    assert status["startTime"]
    words = ("sacct", "-n", "-X", "-P", "-o", "user,state", "-j", job)
    wait_until("accounting to say so", lambda: testbed.run(*words).stdout.strip() == "alice|COMPLETED")


def test_a_pods_phases_never_go_back(pods: Pods) -> None:
    pods.run("steps", "sh", "-c", "sleep 2")
    pods.wait_phase("steps", "Succeeded")
    pods.wait_events("steps", "Scheduled", "Pulled", "Created", "Started")


def test_18_exit_code_3_is_failed_with_exit_code_3(pods: Pods) -> None:
    pods.run("three", "sh", "-c", "exit 3")
    pods.wait_phase("three", "Failed")
    ending = pods.terminated("three")
    assert (ending["exitCode"], ending["reason"]) == (3, "Error")


def test_a_killed_process_is_137(pods: Pods) -> None:
    pods.run("killed", "sh", "-c", "kill -9 $$$$")  # Kubernetes makes $ of $$
    pods.wait_phase("killed", "Failed")
    assert pods.terminated("killed")["exitCode"] == 137


def test_a_missing_command_says_so(pods: Pods) -> None:
    pods.run("nocommand", "no-such-program")
    status = pods.wait_phase("nocommand", "Failed")
    ending = status["containerStatuses"][0]["state"]["terminated"]
    assert ending["exitCode"] in {127, 128}
    assert "no-such-program" in ending.get("message", "")


def test_a_job_cancelled_by_a_person_fails_the_pod_and_says_so(pods: Pods, testbed: Testbed) -> None:
    pods.run("cancelled", "sleep", "600")
    pods.wait_phase("cancelled", "Running")
    (job,) = pods.jobs("cancelled")
    testbed.run("scancel", job)
    status = pods.wait_phase("cancelled", "Failed")
    assert "cancel" in json.dumps(status).lower()
    assert pods.terminated("cancelled")["exitCode"] in {137, 143}


def test_31_a_job_at_its_time_limit_is_deadline_exceeded(pods: Pods, testbed: Testbed) -> None:
    pods.run("late", "sleep", "600")
    pods.wait_phase("late", "Running")
    (job,) = pods.jobs("late")
    testbed.run("scontrol", "update", f"jobid={job}", "endtime=now+2")  # it has to be later than the start
    status = pods.wait_phase("late", "Failed", seconds=120)
    assert status["reason"] == "DeadlineExceeded"
    assert "time limit" in status["message"]


def test_a_rejected_job_carries_sbatchs_own_words(pods: Pods) -> None:
    pod = manifest("rejected", pods.agent, "true")
    pod["metadata"]["annotations"]["slurmlet.io/partition"] = "no-such-partition"
    pods.apply(pod)
    status = pods.wait_phase("rejected", "Failed")
    assert status["reason"] == "SlurmRejected"
    assert "invalid partition" in status["message"].lower()
    pods.wait_event("rejected", "SlurmRejected", "nvalid partition")


def test_an_unsupported_field_is_refused_by_its_path(pods: Pods) -> None:
    pods.run("privileged", "true", securityContext={"privileged": True})
    status = pods.wait_phase("privileged", "Failed")
    assert "spec.containers[0].securityContext.privileged" in status["message"]
    assert pods.jobs("privileged") == []


def test_22_a_missing_image_is_errimagepull_then_imagepullbackoff(pods: Pods) -> None:
    pods.run("noimage", "true", image="no-such-image:1")
    seen = set()

    def backing_off(status: dict[str, Any]) -> bool:
        for container in status.get("containerStatuses", []):
            seen.add(container["state"].get("waiting", {}).get("reason"))
        return "ImagePullBackOff" in seen

    pods.wait("noimage", "to back off", backing_off)
    if "ErrImagePull" not in seen:
        pods.wait_event("noimage", "Failed", "ErrImagePull")
    pods.kubectl("delete", "pod", "noimage", "--timeout=60s")
    assert pods.get("noimage") is None


def test_38_a_missing_configmap_waits_and_recovers_when_it_appears(pods: Pods) -> None:
    source = {"configMapKeyRef": {"name": "later", "key": "word"}}
    pods.run("patient", "sh", "-c", 'test "$WORD" = here', env=[{"name": "WORD", "valueFrom": source}])
    pods.wait(
        "patient",
        "to wait for its ConfigMap",
        lambda s: (
            s["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerConfigError"
            if s.get("containerStatuses")
            else False
        ),
    )
    pods.kubectl("create", "configmap", "later", "--from-literal=word=here")
    pods.wait_phase("patient", "Succeeded")


def test_35_describe_shows_slurms_reason_place_and_expected_start_while_the_job_waits(pods: Pods) -> None:
    devices = {"cpu": "1", "memory": "64Mi", "nvidia.com/gpu": "2"}  # all that the only node with this GPU has
    for name, command in (("holder", ("sleep", "600")), ("queued", ("true",))):
        pod = manifest(name, pods.agent, *command, resources={"limits": devices})
        pod["metadata"]["annotations"] |= {"slurmlet.io/partition": "gpu", "slurmlet.io/gpu-type": "h100"}
        pod["metadata"]["annotations"]["slurmlet.io/time-limit"] = "30m"
        pods.apply(pod)
        if name == "holder":
            pods.wait_phase(name, "Running")
    words = (
        r"Message: .*(Resources|Priority)",
        r"about \d+ of \d+ waiting in partition gpu",
        r"priority \d+",
        r"expected to start by ",
    )
    wait_until(
        "describe to show Slurm's reason, the pod's place, its priority and when Slurm expects to start it",
        lambda: all(re.search(word, pods.kubectl("describe", "pod", "queued")) for word in words),
        seconds=120,
    )
    assert pods.status("queued")["phase"] == "Pending"
    pods.kubectl("delete", "pod", "holder", "--wait=false")
    pods.wait_phase("queued", "Succeeded")
    assert "message" not in pods.status("queued")


def test_23_init_containers_run_in_order_before_containers_that_run_together(pods: Pods) -> None:
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    pod = manifest("inits", pods.agent, "sh", "-c", "cat /shared/order; while ! test -e /shared/b; do sleep 0.1; done")
    main = pod["spec"]["containers"][0] | shared
    other = main | {"name": "other", "command": ["sh", "-c", "echo other; touch /shared/b"]}
    pod["spec"]["containers"] = [main, other]
    pod["spec"]["volumes"] = [{"name": "shared", "emptyDir": {}}]
    pod["spec"]["initContainers"] = [
        {"name": f"init-{n}", "image": "busybox:1.36", "command": ["sh", "-c", f"echo {n} >> /shared/order"], **shared}
        for n in (1, 2)
    ]
    pods.apply(pod)
    pods.wait_phase("inits", "Succeeded")
    assert pods.kubectl("logs", "inits", "--container=main").split() == ["1", "2"]
    assert pods.kubectl("logs", "inits", "--container=other").split() == ["other"]


def test_environment_configmaps_and_secrets_arrive(pods: Pods) -> None:
    pods.kubectl("create", "configmap", "settings", "--from-literal=color=blue", "--from-literal=app.conf=key=1\n")
    pods.kubectl("create", "secret", "generic", "password", "--from-literal=word=s3cret $(id) 'q' \"d\" \\")
    pod = manifest(
        "inputs", pods.agent, "sh", "-c", 'echo "$PLAIN|$EXPANDED|$COLOR|$NAME"; cat /etc/app/app.conf /secret/w'
    )
    container = pod["spec"]["containers"][0]
    container["env"] = [
        {"name": "PLAIN", "value": "a b"},
        {"name": "EXPANDED", "value": "$(PLAIN)-$$(PLAIN)-$(UNKNOWN)"},
        {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]
    container["volumeMounts"] = [{"name": "app", "mountPath": "/etc/app"}, {"name": "secret", "mountPath": "/secret"}]
    items = [{"key": "word", "path": "w", "mode": 0o400}]
    pod["spec"]["volumes"] = [
        {"name": "app", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "password", "items": items}},
    ]
    pods.apply(pod)
    pods.wait_phase("inputs", "Succeeded")
    first, *rest = pods.kubectl("logs", "inputs").splitlines()
    assert first == "a b|a b-$(PLAIN)-$(UNKNOWN)|blue|inputs"
    assert rest == ["key=1", "s3cret $(id) 'q' \"d\" \\"]


def test_images_own_entrypoint_and_environment_apply(pods: Pods, testbed: Testbed) -> None:
    pods.run("entrypoint", image=testbed.environment["SLURMLET_TESTBED_REGISTRY"] + "/slurmlet/test-entrypoint:1")
    pods.wait_phase("entrypoint", "Succeeded")
    assert pods.kubectl("logs", "entrypoint").strip()


def test_27_deleting_a_running_pod_gives_it_its_grace_and_leaves_no_job(pods: Pods, testbed: Testbed) -> None:
    pods.run("graceful", "sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done")
    pods.wait_phase("graceful", "Running")
    wait_until("its first line", lambda: "up" in pods.kubectl("logs", "graceful"))
    jobs = pods.jobs("graceful")
    pods.kubectl("delete", "pod", "graceful", "--timeout=60s")
    assert pods.get("graceful") is None
    wait_until("its job to end", lambda: not _live(testbed, jobs))


def test_27_a_pod_that_ignores_term_is_killed_after_its_grace(pods: Pods, testbed: Testbed) -> None:
    pods.run("stubborn", "sh", "-c", "trap '' TERM; while true; do sleep 1; done")
    pods.wait_phase("stubborn", "Running")
    jobs = pods.jobs("stubborn")
    pods.kubectl("delete", "pod", "stubborn", "--timeout=60s")
    assert not _live(testbed, jobs)


def test_28_a_forced_deletion_leaves_no_job(pods: Pods, testbed: Testbed) -> None:
    pods.run("forced", "sleep", "600")
    pods.wait_phase("forced", "Running")
    jobs = pods.jobs("forced")
    pods.kubectl("delete", "pod", "forced", "--force", "--grace-period=0")
    wait_until("its job to end", lambda: not _live(testbed, jobs))


def _live(testbed: Testbed, jobs: list[str]) -> list[str]:
    return testbed.run(
        "squeue", "-h", "-t", "pending,running,completing", "-o", "%i", "-j", ",".join(jobs)
    ).stdout.split()


def test_29_a_recreated_pod_of_the_same_name_is_another_pod(pods: Pods) -> None:
    pods.run("again", "sh", "-c", "echo first")
    pods.wait_phase("again", "Succeeded")
    pods.kubectl("delete", "pod", "again", "--timeout=60s")
    pods.run("again", "sh", "-c", "echo second")
    pods.wait_phase("again", "Succeeded")
    assert pods.kubectl("logs", "again") == "second\n"


def test_a_kubernetes_job_counts_its_pods(pods: Pods, agent: Agent) -> None:
    template = manifest("unused", agent, "true")
    pods.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "batch"},
            "spec": {"completions": 3, "parallelism": 3, "template": {"spec": template["spec"] | placed(agent)}},
        }
    )
    pods.kubectl("wait", "job/batch", "--for=condition=complete", "--timeout=55s")


# Of an agent on the login node the crowds are in test_crowds.
@pytest.mark.parametrize("agent", ["ssh"], indirect=True, scope="session")
def test_fifty_pods_at_once_all_succeed(pods: Pods) -> None:
    names = [f"many-{n}" for n in range(50)]
    pods.apply(*(manifest(name, pods.agent, "sh", "-c", f"echo {name}") for name in names))

    def phases() -> bool:
        found = pods.testbed.looker.items("pod", pods.namespace)
        return sum(pod["status"]["phase"] == "Succeeded" for pod in found) == 50

    wait_until("50 pods to succeed", phases, seconds=180, every=0.5)
    logs = {name: own_words(pods.kubectl("logs", name).splitlines()) for name in names[::10]}
    assert logs == {name: [name] for name in logs}
