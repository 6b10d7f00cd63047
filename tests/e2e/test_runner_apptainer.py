"""The pod runner with real Apptainer, as an ordinary user on the testbed's site; Slurm and Kubernetes are not in it."""

import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from slurm_plugin.runner import plan
from slurm_plugin.runner.cache import Cache
from slurm_plugin.runner.process import send
from slurm_plugin.runner.proctree import descendants
from slurm_plugin.runner.state import Terminated, Waiting
from testbed.paths import Layout
from tests.slurm_plugin.runner.jobs import (
    Job,
    assert_many_sided,
    container,
    exec_action,
    many_sided,
    pod,
    probe,
    shell,
)

from .runnersite import Site, SiteJob
from .runtimes import program
from .testbed import Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e
FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def site(testbed: Testbed) -> Iterator[Site]:
    share = Layout.from_environment(testbed.environment).share / f"runner-{secrets.token_hex(4)}"
    yield Site(testbed, share)
    shutil.rmtree(share)


MakeSiteJob = Callable[..., SiteJob]


@pytest.fixture
def job(site: Site) -> Iterator[MakeSiteJob]:
    made: list[SiteJob] = []

    def make(
        what: plan.Plan,
        env: Mapping[str, Sequence[plan.EnvEntry]] | None = None,
        executable: Path | str | None = None,
    ) -> SiteJob:
        made.append(SiteJob(site, what, env, program() if executable is None else executable))
        return made[-1]

    yield make
    for each in made:
        for process in each.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=30)
        each.close()


def ending(job: Job, name: str) -> Terminated:
    state = job.container(name).state
    assert isinstance(state, Terminated), state
    return state


@pytest.fixture
def busybox(site: Site) -> plan.Image:
    return site.image("library/busybox:1.36")


def test_image_is_pulled_and_its_digest_known(job: MakeSiteJob, busybox: plan.Image) -> None:
    j = job(pod(container("a", "echo", "hello", image=busybox)))
    assert j.run() == 0
    assert j.log("a") == ["stdout F hello"]
    assert "@sha256:" in j.container("a").image_id
    assert j.reasons("a")[-3:] == ["Pulled", "Created", "Started"]


def test_second_pod_finds_the_image_on_the_machine(job: MakeSiteJob, busybox: plan.Image) -> None:
    assert job(pod(container("a", "true", image=busybox))).run() == 0
    j = job(pod(container("a", "true", image=busybox)))
    assert j.run() == 0
    assert j.reasons("a") == ["Pulled", "Created", "Started"]


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ((), None, "hello from /data"),
        ((), ("echo only $0",), "only /bin/sh"),
        (("echo", "instead"), None, "instead"),
        (("echo",), ("both",), "both"),
    ],
)
def test_entrypoint_and_cmd_follow_kubernetes_table(
    job: MakeSiteJob, site: Site, command: tuple[str, ...], args: tuple[str, ...] | None, expected: str
) -> None:
    j = job(pod(container("a", *command, args=args, image=site.image("slurmlet/test-entrypoint:1"))))
    assert j.run() == 0, j.log("a")
    assert j.log("a") == [f"stdout F {expected}"]


@pytest.mark.parametrize("script", ["exit 0", "exit 3", "exit 255", "kill -KILL $$$$", "kill -TERM $$$$"])
def test_exit_codes_pass_through(job: MakeSiteJob, busybox: plan.Image, script: str) -> None:
    expected = {"exit 0": 0, "exit 3": 3, "exit 255": 255, "kill -KILL $$$$": 137, "kill -TERM $$$$": 143}[script]
    j = job(pod(shell("a", script, image=busybox)))
    assert j.run() == expected
    assert ending(j, "a").reason == ("Error" if expected else "Completed")


@pytest.mark.parametrize(
    ("command", "words"), [("nosuch", "executable file not found in $PATH"), ("/nosuch", "no such file or directory")]
)
def test_missing_command_is_a_start_error(job: MakeSiteJob, busybox: plan.Image, command: str, words: str) -> None:
    j = job(pod(container("a", command, image=busybox)))
    assert j.run() == 128
    assert ending(j, "a").reason == "StartError"
    assert words in ending(j, "a").message


def test_environment_arrives_intact_and_is_never_evaluated(job: MakeSiteJob, busybox: plan.Image) -> None:
    values = {
        "QUOTES": "'\"`id`$(id)${HOME}\\",
        "LINES": "one\ntwo\n",
        "UNICODE": "ü ☃ 🐳",
        "EMPTY": "",
        "HOME": "/my ho'me",
        "LD_LIBRARY_PATH": "/mine",
        "LD_PRELOAD": "/no/such.so",
        "PYTHONPATH": "/nowhere",
        "APPTAINER_BIND": "/etc/shadow",
        "spring.datasource.url": "dotted",
    }
    entries = [plan.EnvEntry(name, value, expand=False, node_field="") for name, value in values.items()]
    j = job(pod(container("a", "env", "-0", image=busybox)), {"a": entries})
    assert j.run() == 0, j.log("a")
    found = "\n".join(line.split(" ", 2)[2] for line in j.log("a")) + "\n"
    for name, value in values.items():
        # Apptainer sets its own notes (APPTAINER_*) after everybody else's.
        assert f"{name}={value}\0" in found or name == "APPTAINER_BIND", name


def test_termination_message_is_read_from_the_containers_own_dev(job: MakeSiteJob, busybox: plan.Image) -> None:
    j = job(pod(shell("a", "printf 'last words' > /dev/termination-log; exit 1", image=busybox)))
    assert j.run() == 1
    assert ending(j, "a").message == "last words"


def test_termination_message_path_may_be_anywhere(job: MakeSiteJob, busybox: plan.Image) -> None:
    j = job(pod(shell("a", "printf bye > /tmp/said; exit 1", image=busybox, termination_message_path="/tmp/said")))
    assert j.run() == 1
    assert ending(j, "a").message == "bye"


def test_volumes_are_shared_read_only_where_they_are_and_gone_after(
    job: MakeSiteJob, site: Site, busybox: plan.Image
) -> None:
    volumes = (
        plan.Volume("disk", plan.EMPTY_DIR, "", "", 0),
        plan.Volume("memory", plan.MEMORY, "", "", 0),
        plan.Volume("config", plan.CONTENT, "", "", 0),
    )
    mounts = (
        plan.Mount("disk", "/shared", "", read_only=False),
        plan.Mount("disk", "/sub", "a/b", read_only=False),
        plan.Mount("memory", "/dev/shm", "", read_only=False),
        plan.Mount("config", "/etc/config", "", read_only=False),
    )
    # Directories that not even their owner may enter, among them one in the container's own /tmp, which is scratch too.
    closed = (
        "for d in /tmp /sub /dev/shm; do mkdir -p $d/closed/inner; touch $d/closed/inner/f; chmod 0 $d/closed; done"
    )
    script = f"echo x > /sub/f; echo y > /dev/shm/g; {closed}"
    writer = shell("w", script, image=busybox, mounts=mounts, kind=plan.INIT)
    reader = shell(
        "r",
        "cat /shared/a/b/f /dev/shm/g /etc/config/key; touch /etc/config/new || echo read-only; df /dev/shm | tail -1",
        image=busybox,
        mounts=mounts,
    )
    j = job(pod(writer, reader, volumes=volumes))
    content = Path(j.directory.volume("config"))
    (content / "..1").mkdir(parents=True)
    (content / "..1" / "key").write_text("value\n")
    (content / "..data").symlink_to("..1")
    (content / "key").symlink_to("..data/key")
    site.give(Path(j.directory.path))
    assert j.run() == 0, j.log("r")
    lines = [line for line in j.log("r") if line.startswith("stdout")]
    assert lines[:4] == ["stdout F x", "stdout F y", "stdout F value", "stdout F read-only"]
    assert list(j.scratch.iterdir()) == []


def test_a_sub_path_that_is_swapped_for_a_link_before_it_is_mounted_is_not_let_in(
    job: MakeSiteJob, site: Site, busybox: plan.Image
) -> None:
    volume = site.share / "swapped"
    (volume / "good").mkdir(parents=True)
    (volume / "bad").mkdir()
    (site.share / "secret").mkdir()
    swapping = site.share / "swapping-apptainer"  # as another container would, between the check and the mount
    swapping.write_text(
        f'#!/bin/sh\ncase "$*" in *{volume}/bad:*) cd {volume} && [ -L bad ] || '
        f'{{ mv bad aside && ln -s {site.share}/secret bad; }}; cd / ;; esac\nexec {program()} "$@"\n'
    )
    swapping.chmod(0o755)
    site.give(volume)
    volumes = (plan.Volume("v", plan.HOST_PATH, str(volume), "", 0),)

    def one(name: str) -> plan.Container:
        mounts = (plan.Mount("v", "/data", name, read_only=False),)
        return shell(name, "touch /data/was-here", image=busybox, mounts=mounts)

    j = job(pod(one("good"), one("bad"), volumes=volumes), executable=swapping)
    process = j.start()
    j.wait_until(lambda j: isinstance(j.container("good").state, Terminated) and "Failed" in j.reasons("bad"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert ending(j, "good").exit_code == 0
    assert (volume / "good" / "was-here").exists()
    words = [event.message for event in j.state().events if event.reason == "Failed" and event.container == "bad"]
    assert words[0] == f"Error: {volume}/bad was swapped for something else before it was mounted"
    assert "Started" not in j.reasons("bad")
    assert not list((site.share / "secret").iterdir())
    assert not list((volume / "aside").iterdir())


def test_hostname_and_host_aliases_are_the_pods(job: MakeSiteJob, busybox: plan.Image) -> None:
    aliases = (("10.1.2.3", ("db", "db.internal")),)
    j = job(pod(shell("a", "hostname; grep -w db /etc/hosts", image=busybox), hostname="web-0", host_aliases=aliases))
    assert j.run() == 0
    assert j.log("a") == ["stdout F web-0", "stdout F 10.1.2.3\tdb\tdb.internal"]


def test_read_only_root_is_read_only(job: MakeSiteJob, busybox: plan.Image) -> None:
    j = job(pod(shell("a", "touch /x", image=busybox, read_only_root=True), shell("b", "touch /x", image=busybox)))
    j.run()
    assert ending(j, "a").exit_code != 0
    assert ending(j, "b").exit_code == 0


def test_term_reaches_the_command_and_kill_all_of_it(job: MakeSiteJob, busybox: plan.Image) -> None:
    j = job(
        pod(
            shell("good", "trap 'echo term; exit 4' TERM; echo up; while :; do sleep 0.05; done", image=busybox),
            shell("bad", "trap '' TERM; echo up; sleep 1000", image=busybox),
            grace_seconds=2,
        )
    )
    process = j.start()
    j.wait_until(lambda j: all(j.log(name) == ["stdout F up"] for name in ("good", "bad")), seconds=30)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 4
    assert j.log("good") == ["stdout F up", "stdout F term"]
    assert ending(j, "bad").exit_code == 137


@pytest.mark.parametrize("delay", [0, 0.2, 0.35, 0.5])
def test_a_signal_to_every_process_of_the_job_ends_a_container_by_that_signal(
    job: MakeSiteJob, busybox: plan.Image, delay: float
) -> None:
    j = job(pod(container("a", "sleep", "600", image=busybox)))
    process = j.start()
    j.wait_until(lambda j: Path(j.directory.state).exists(), seconds=60)
    time.sleep(delay)  # somewhere while Apptainer sets the container up
    for number in (signal.SIGCONT, signal.SIGTERM):  # as slurmd does at a job's end
        for pid in [process.pid, *(each.pid for each in descendants(process.pid))]:
            send(pid, number)
    process.communicate(timeout=60)
    state = j.container("a").state
    assert j.state().final
    assert process.returncode in {143, 137}
    if isinstance(state, Terminated):
        assert (state.exit_code, state.signal) in {(143, 15), (143, 0), (137, 9), (137, 0)}, state
    assert list(j.scratch.iterdir()) == [], "no image is left mounted on the node"


def test_probes_and_hooks_run_inside(job: MakeSiteJob, busybox: plan.Image) -> None:
    checked = exec_action("sh", "-c", 'test "$VALUE" = "a\'b" && test "$(hostname)" = web && test -e /post')
    j = job(
        pod(
            shell(
                "a",
                FOREVER,
                image=busybox,
                post_start=exec_action("touch", "/post"),
                readiness_probe=probe(checked, failure_threshold=30),
                pre_stop=exec_action("sh", "-c", "echo stopping > /dev/termination-log"),
            )
        ),
        {"a": [plan.EnvEntry("VALUE", "a'b", expand=False, node_field="")]},
    )
    process = j.start()
    j.wait_until(lambda j: j.container("a").ready, seconds=30)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert ending(j, "a").message == "stopping\n"


def test_image_that_does_not_exist_is_tried_again_and_again(job: MakeSiteJob, site: Site) -> None:
    j = job(pod(container("a", "true", image=site.image("library/nothing:1"))))
    process = j.start()

    def backs_off(j: Job) -> bool:
        state = j.container("a").state
        return isinstance(state, Waiting) and state.reason == "ImagePullBackOff"

    j.wait_until(backs_off, seconds=30)
    assert {"Pulling", "Failed", "BackOff"} <= set(j.reasons("a"))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert j.state().final


@pytest.mark.parametrize(
    ("source", "policy", "reason"),
    [("", "Always", "InvalidImageName"), ("docker://127.0.0.1:1/x:1", "Never", "ErrImageNeverPull")],
)
def test_image_that_can_not_be_had_says_why(job: MakeSiteJob, source: str, policy: str, reason: str) -> None:
    j = job(pod(container("a", "true", image=plan.Image("Bad Name", source, policy, insecure=True))))
    process = j.start()
    j.wait_until(lambda j: getattr(j.container("a").state, "reason", "") == reason, seconds=30)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)


def test_many_pods_of_one_image_pull_it_once(job: MakeSiteJob, site: Site) -> None:
    calls = site.share / "calls"
    counting = site.share / "counting-apptainer"
    counting.write_text(f'#!/bin/sh\necho "$2" >> {calls}\nexec {program()} "$@"\n')
    counting.chmod(0o755)
    image = site.image("library/python:3.11-slim")
    jobs = [job(pod(container("a", "python3", "-c", "print(1)", image=image)), executable=counting) for _ in range(12)]
    for process in [j.start() for j in jobs]:
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    words = calls.read_text().split()
    assert words.count("exec") == len(jobs)
    pulls = [word for word in words if word != "exec"]
    assert pulls in (["build"], ["build", "pull"]), (
        "one of them pulled (an older program in two ways), the others waited"
    )
    assert not list((site.images / "tmp").iterdir())
    assert not list((site.images / "locks").iterdir())


def test_a_pod_runs_the_same_under_two_pythons_that_debian_supplies(job: MakeSiteJob, site: Site) -> None:
    first = job(pod(container("a", "true", image=site.image("library/python:3.11-slim"))))
    output, _ = first.start().communicate(timeout=300)  # where it has to be pulled
    assert isinstance(first.container("a").state, Terminated), output
    image = Cache(str(site.images)).image(first.container("a").image_id.partition("@")[2])
    older = site.share / "older-python"  # Debian 12's, in that image; the site is Debian 13
    older.write_text(f'#!/bin/sh\nexec {program()} --silent exec --bind {site.share} {image} python3 "$@"\n')
    older.chmod(0o755)
    pythons = ("/usr/bin/python3", str(older))
    assert len({site.run(python, "-V") for python in pythons}) == 2
    for python in pythons:
        files = site.share / secrets.token_hex(4)
        files.mkdir()
        site.give(files)
        values = {"SLURMLET_FILES": str(files), "VALUE": "it's ☃"}
        env = [plan.EnvEntry(name, value, expand=False, node_field="") for name, value in values.items()]
        what = many_sided()
        j = job(what, {each.name: env for each in what.containers}, executable="")
        assert_many_sided(j, j.run(python=python))


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A memory cgroup of the kernel's, of 300 MiB, as Slurm's task/cgroup makes one for a job."""
    version1, version2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    name = f"slurmlet-test-{secrets.token_hex(4)}"
    if (version1 / "memory.limit_in_bytes").exists():
        made, limit = version1 / name, "memory.limit_in_bytes"
    elif "memory" in (version2 / "cgroup.subtree_control").read_text().split():
        made, limit = version2 / name, "memory.max"
    else:
        pytest.skip("no memory cgroup can be made here")
    made.mkdir()
    (made / limit).write_text(str(300 << 20))
    yield made
    wait_until("the cgroup to be empty", lambda: not (made / "cgroup.procs").read_text())
    made.rmdir()


def test_31_the_container_that_the_kernel_killed_for_memory_is_oom_killed_and_no_other(
    job: MakeSiteJob, busybox: plan.Image, cgroup: Path
) -> None:
    greedy = shell("greedy", "sleep 1; head -c 600000000 /dev/zero | tail -c 500000000 > /dev/null", image=busybox)
    j = job(pod(greedy, shell("other", FOREVER, image=busybox), shell("killed", "kill -KILL $$$$", image=busybox)))
    process = j.start()
    (cgroup / "cgroup.procs").write_text(str(process.pid))
    j.wait_until(lambda j: isinstance(j.container("greedy").state, Terminated))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert (ending(j, "greedy").reason, ending(j, "greedy").exit_code) == ("OOMKilled", 137)
    assert (ending(j, "other").reason, ending(j, "other").exit_code) == ("Completed", 0)
    assert (ending(j, "killed").reason, ending(j, "killed").exit_code) == ("Error", 137)
