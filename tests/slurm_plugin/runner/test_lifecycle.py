"""Whole lives of pods, by real runners."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from slurm_plugin.runner import plan
from slurm_plugin.runner.backoff import Timings
from slurm_plugin.runner.state import ContainerState, Running, Terminated, Waiting

from .conftest import MakeJob
from .jobs import Job, container, pod, shell


def ending(state: ContainerState) -> Terminated:
    assert isinstance(state.state, Terminated), state
    return state.state


def runs(job: Job, name: str) -> bool:
    return isinstance(job.container(name).state, Running)


def finish(process: subprocess.Popen[str], seconds: float = 60) -> int:
    output, _ = process.communicate(timeout=seconds)
    assert "Traceback" not in output, output
    return process.returncode


# The simplest


def test_exit_code_is_the_first_app_containers_that_is_not_0(job: MakeJob) -> None:
    j = job(pod(shell("a", "exit 0"), shell("b", "exit 3"), shell("c", "exit 4")))
    assert j.run() == 3
    assert [ending(state).exit_code for state in j.state().containers] == [0, 3, 4]
    assert [ending(state).reason for state in j.state().containers] == ["Completed", "Error", "Error"]


def test_final_state_says_that_nothing_runs(job: MakeJob) -> None:
    j = job(pod(shell("a", "true")))
    j.run()
    state = j.state()
    assert state.final
    assert not state.terminating
    assert state.finished_at >= state.started_at
    assert (state.job_id, state.restart, state.node) == ("42", 0, "cn1")
    assert state.pod_ips == state.host_ips


def test_events_tell_of_creation_and_start(job: MakeJob) -> None:
    j = job(pod(shell("a", "true")))
    j.run()
    assert j.reasons("a") == ["Created", "Started"]


def test_output_is_in_the_cri_format(job: MakeJob) -> None:
    j = job(pod(shell("a", "echo one; sleep 0.1; echo two >&2; sleep 0.1; printf three")))
    j.run()
    assert j.log("a") == ["stdout F one", "stderr F two", "stdout P three"]


def test_missing_command_is_a_start_error(job: MakeJob) -> None:
    j = job(pod(container("a", "no-such-program")))
    assert j.run() == 128
    assert ending(j.container("a")).reason == "StartError"
    assert 'exec: "no-such-program": executable file not found in $PATH' in ending(j.container("a")).message


def test_container_that_a_signal_killed_says_so(job: MakeJob) -> None:
    j = job(pod(shell("a", "kill -KILL $$$$")))
    assert j.run() == 137
    assert ending(j.container("a")).signal == signal.SIGKILL


def test_nothing_a_container_left_behind_survives_it(job: MakeJob, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 1000 & echo $! >> {pids}; setsid sleep 1000 & echo $! >> {pids}; sleep 0.2"
    j = job(pod(shell("a", script)))
    j.run()
    for pid in pids.read_text().split():
        assert not os.path.exists(f"/proc/{pid}"), pid


# Init and sidecar containers


def test_init_containers_run_in_order_before_the_apps(job: MakeJob, tmp_path: Path) -> None:
    order = tmp_path / "order"
    j = job(
        pod(
            shell("i1", f"sleep 0.1; echo i1 >> {order}", kind=plan.INIT),
            shell("i2", f"echo i2 >> {order}", kind=plan.INIT),
            shell("a", f"echo a >> {order}"),
        )
    )
    assert j.run() == 0
    assert order.read_text().split() == ["i1", "i2", "a"]
    assert j.container("i1").ready


def test_failed_init_container_ends_the_pod(job: MakeJob) -> None:
    j = job(pod(shell("i", "exit 9", kind=plan.INIT), shell("a", "true")))
    assert j.run() == 9
    assert j.container("a").state == Waiting("PodInitializing", "")


def test_init_container_is_tried_again_on_failure(job: MakeJob, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"test -e {mark} || {{ touch {mark}; exit 1; }}"
    j = job(pod(shell("i", script, kind=plan.INIT, restart_policy="OnFailure"), shell("a", "true")))
    assert j.run() == 0
    assert j.container("i").restart_count == 1


def test_sidecar_starts_first_and_is_stopped_after_the_apps(job: MakeJob, tmp_path: Path) -> None:
    order = tmp_path / "order"
    sidecar = f"trap 'echo down >> {order}; exit 0' TERM; echo up >> {order}; while :; do sleep 0.05; done"
    j = job(
        pod(
            shell("s", sidecar, kind=plan.SIDECAR, restart_policy="Always"),
            shell("a", f"until test -s {order}; do sleep 0.05; done; echo app >> {order}"),
        )
    )
    assert j.run() == 0
    assert order.read_text().split() == ["up", "app", "down"]
    assert "Killing" in j.reasons("s")


def test_sidecar_that_ends_is_started_again(job: MakeJob, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    sidecar = shell("s", f"echo x >> {starts}; exit 1", kind=plan.SIDECAR, restart_policy="Always")
    app = shell("a", f"while test $(wc -l < {starts}) -lt 3; do sleep 0.05; done")
    j = job(pod(sidecar, app))
    assert j.run() == 0
    assert j.container("s").restart_count >= 2


# Restarts


def test_on_failure_restarts_until_success(job: MakeJob, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"echo x >> {count}; test $(wc -l < {count}) -ge 3"
    j = job(pod(shell("a", script, restart_policy="OnFailure")))
    assert j.run() == 0
    state = j.container("a")
    assert state.restart_count == 2
    assert state.last is not None
    assert state.last.exit_code == 1
    assert [Path(j.directory.log("a", n)).exists() for n in range(4)] == [False, True, True, False]


LONG = Timings(base=600.0, limit=600.0, reset=6000.0)  # the first restart does not wait, the second does


def backs_off(job: Job) -> bool:
    state = job.container("a").state
    return isinstance(state, Waiting) and state.reason == "CrashLoopBackOff"


def test_crash_loop_waits_and_says_so(job: MakeJob) -> None:
    j = job(pod(shell("a", "exit 7", restart_policy="Always")))
    process = j.start(timings=LONG)
    j.wait_until(backs_off)
    state = j.container("a")
    assert state.restart_count == 1
    assert isinstance(state.state, Waiting)
    assert state.state.message == "back-off 600s restarting failed container=a pod=web_default(6d0f1d5e)"
    assert state.last is not None
    assert state.last.exit_code == 7
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 7
    assert ending(j.container("a")).exit_code == 7, "what waited for a restart is reported as it ended"


def test_completed_container_is_restarted_under_always(job: MakeJob) -> None:
    j = job(pod(shell("a", "true", restart_policy="Always")))
    process = j.start(timings=LONG)
    j.wait_until(backs_off)
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 0
    assert j.container("a").restart_count == 1


# The end from outside

OBEDIENT = "trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"
STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.05; done"


def test_term_stops_containers_and_restarts_nothing(job: MakeJob) -> None:
    j = job(pod(shell("a", OBEDIENT, restart_policy="Always")))
    process = j.start()
    j.wait_until(lambda j: j.log("a") == ["stdout F up"])
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 5
    assert j.state().terminating
    assert j.state().reason == ""
    assert j.container("a").restart_count == 0
    assert "Killing" in j.reasons("a")


def test_grace_period_ends_in_kill(job: MakeJob) -> None:
    j = job(pod(shell("a", STUBBORN), grace_seconds=0))
    process = j.start()
    j.wait_until(lambda j: j.log("a") == ["stdout F up"])
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 137
    assert 1.9 < time.monotonic() - begun < 30, "never less than two seconds, as the kubelet"


def test_grace_file_shortens_the_grace_period(job: MakeJob) -> None:
    j = job(pod(shell("a", STUBBORN), grace_seconds=600))
    process = j.start()
    j.wait_until(lambda j: j.log("a") == ["stdout F up"])
    process.send_signal(signal.SIGTERM)
    j.wait_until(lambda j: j.state().terminating)
    Path(j.directory.grace).write_text("1")
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 137


def test_time_limits_warning_ends_the_pod_as_deadline_exceeded(job: MakeJob) -> None:
    j = job(pod(shell("a", OBEDIENT)))
    process = j.start()
    j.wait_until(lambda j: j.log("a") == ["stdout F up"])
    process.send_signal(signal.SIGUSR1)
    assert finish(process) == 5
    assert j.state().reason == "DeadlineExceeded"
    assert "Slurm's time limit" in j.state().message


def test_active_deadline_ends_the_pod(job: MakeJob) -> None:
    j = job(pod(shell("a", "trap 'exit 0' TERM; while :; do sleep 0.05; done"), deadline_seconds=1))
    code, state = j.run(), j.container("a").state
    # On a slow machine it may not have come to its trap, or not have begun at all.
    assert code == (1 if isinstance(state, Terminated) and state.exit_code == 0 else 143)
    assert j.state().reason == "DeadlineExceeded"
    assert j.state().message == "Pod was active on the node longer than the specified deadline"


def test_sidecars_get_term_after_the_apps_are_gone(job: MakeJob, tmp_path: Path) -> None:
    order = tmp_path / "order"

    def slow(name: str) -> str:
        return f"trap 'sleep 0.2; echo {name} >> {order}; exit 0' TERM; echo up; while :; do sleep 0.05; done"

    j = job(
        pod(
            shell("s1", slow("s1"), kind=plan.SIDECAR, restart_policy="Always"),
            shell("s2", slow("s2"), kind=plan.SIDECAR, restart_policy="Always"),
            shell("a", slow("a")),
        )
    )
    process = j.start()
    j.wait_until(lambda j: all(j.log(name) == ["stdout F up"] for name in ("s1", "s2", "a")))
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 0
    assert order.read_text().split() == ["a", "s2", "s1"]


def test_term_during_an_init_container_starts_no_app(job: MakeJob) -> None:
    j = job(
        pod(shell("i", "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done", kind=plan.INIT), shell("a", "true"))
    )
    process = j.start()
    j.wait_until(lambda j: j.log("i") == ["stdout F up"])
    process.send_signal(signal.SIGTERM)
    assert finish(process) == 143, "Slurm shall not call it completed"
    assert j.container("a").state == Waiting("PodInitializing", "")


# Termination messages


def test_termination_message_is_the_files_content(job: MakeJob) -> None:
    j = job(pod(shell("a", "true")))
    path = j.directory.termination("a")
    j = job(pod(shell("a", f"printf bye > {path.replace('job0', 'job1')}; exit 1")))
    j.run()
    assert ending(j.container("a")).message == "bye"


def test_termination_message_falls_back_to_the_log_on_error(job: MakeJob) -> None:
    policy = {"termination_message_policy": "FallbackToLogsOnError"}
    j = job(pod(shell("a", "echo why; exit 1", **policy), shell("b", "echo fine", **policy)))
    j.run()
    assert ending(j.container("a")).message == "why\n"
    assert ending(j.container("b")).message == ""


# Environment and volumes


def test_messages_from_logs_share_the_pods_12_kib_as_well(job: MakeJob) -> None:
    script = "i=0; while [ $i -lt 100 ]; do echo $i is a line that is rather long; i=$((i+1)); done; echo last; exit 1"
    names = [f"c{number}" for number in range(8)]
    j = job(pod(*(shell(name, script, termination_message_policy="FallbackToLogsOnError") for name in names)))
    assert j.run() == 1
    messages = [ending(j.container(name)).message for name in names]
    assert all(message.endswith("last\n") for message in messages)
    assert sum(map(len, messages)) <= 12 * 1024


def test_environment_expands_in_order_and_hostile_values_stay_intact(job: MakeJob) -> None:
    hostile = "a'b\"c$(id)`id`\\n\nnew ü ☃"
    entries = [
        plan.EnvEntry("FIRST", "1", expand=False, node_field=""),
        plan.EnvEntry("SECOND", "$(FIRST) $(MISSING) $$(FIRST)", expand=True, node_field=""),
        plan.EnvEntry("HOSTILE", hostile, expand=False, node_field=""),
        plan.EnvEntry("POD_IP", "", expand=False, node_field="status.podIP"),
    ]
    j = job(pod(container("a", "/usr/bin/printenv", args=("SECOND", "HOSTILE", "POD_IP", "$(FIRST)"))), {"a": entries})
    j.run()
    assert j.log("a") == [
        "stdout F 1 $(MISSING) $(FIRST)",
        *(f"stdout F {line}" for line in hostile.split("\n")),
        f"stdout F {j.state().pod_ips[0]}",
    ]


def test_scratch_volumes_are_removed_at_the_end(job: MakeJob) -> None:
    j = job(pod(shell("a", "true"), volumes=(plan.Volume("v", plan.EMPTY_DIR, "", "", 0),)))
    j.run()
    assert list(j.scratch.iterdir()) == []


def test_volumes_that_the_process_runtime_can_not_mount_are_named(job: MakeJob) -> None:
    volumes = (plan.Volume("v", plan.EMPTY_DIR, "", "", 0),)
    j = job(pod(shell("a", "true", mounts=(plan.Mount("v", "/cache", "", read_only=False),)), volumes=volumes))
    j.run()
    (event,) = [event for event in j.state().events if event.reason == "FailedMount"]
    assert event.message.startswith("the process runtime mounts nothing: /cache is at ")


def test_pod_waits_for_a_host_path_of_the_wrong_type(job: MakeJob, tmp_path: Path) -> None:
    path = tmp_path / "data"
    j = job(pod(shell("a", "true"), volumes=(plan.Volume("v", plan.HOST_PATH, str(path), "Directory", 0),)))
    process = j.start()
    j.wait_until(lambda j: "FailedMount" in j.reasons())
    path.mkdir()
    assert finish(process) == 0


# Claims and requeues


def test_second_job_of_a_pod_ends_at_once_and_touches_nothing(job: MakeJob, tmp_path: Path) -> None:
    over = tmp_path / "over"
    j = job(pod(shell("a", f"until test -e {over}; do sleep 0.05; done")))
    first = j.start(job_id="42")
    j.wait_until(lambda j: runs(j, "a"))
    second = j.start(job_id="43")
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert "is run by job 42" in output
    over.touch()
    assert finish(first) == 0
    assert j.state().job_id == "42"


def test_requeued_start_takes_over_and_keeps_what_was(job: MakeJob) -> None:
    j = job(pod(shell("a", "exit 3")))
    j.run()
    assert j.run(restart=1) == 3
    state = j.state()
    assert state.restart == 1
    assert state.containers[0].restart_count == 1
    assert state.containers[0].last is not None
    assert j.run(restart=1) == 0, "the same start again is a loser"


@pytest.mark.parametrize("count", [20])
def test_many_runners_of_one_pod_leave_one_winner(job: MakeJob, count: int, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    j = job(pod(shell("a", f"echo x >> {ran}")))
    processes = [j.start(job_id=str(number)) for number in range(count)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert sum("ends without touching it" in output for output in outputs) == count - 1
    assert ran.read_text() == "x\n"
