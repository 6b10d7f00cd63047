"""Three Slurm users behind one node: who a pod is, the site's policy says, and nobody sees or touches another's."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import pytest

from testbed.paths import Layout

from .agents import Agent
from .pods import Pods, make_pods, manifest
from .tenants import BECOME, SECRET, USERS, WAYS, EveryWay, environments, every_way, mode_of, private_jobs, uid_of
from .testbed import Testbed
from .waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=[False, True], ids=["jobs_for_all_to_see", "private_jobs"])
def private(request: pytest.FixtureRequest, testbed: Testbed) -> Iterator[bool]:
    """Whether Slurm shows to each user their own jobs alone."""
    with private_jobs(testbed) if request.param else nullcontext():
        yield request.param


@pytest.fixture(scope="module")
def tenants(private: bool, testbed: Testbed) -> Iterator[dict[str, Pods]]:
    """A namespace for each user, on one node whose agent is root on the login node."""
    agent = Agent(testbed, "local", index=20, user="root")
    with ExitStack() as stack:
        namespaces = {user: stack.enter_context(contextmanager(make_pods)(testbed, agent)) for user in USERS}
        agent.settings["policy"] = [{"namespaces": [pods.namespace], "user": user} for user, pods in namespaces.items()]
        agent.settings["slurm"] = {"host": {"kind": "local", "prefix": BECOME}}
        agent.start()
        stack.callback(agent.kill)
        agent.wait_ready()
        yield namespaces


@pytest.fixture(scope="module")
def ways(private: bool, testbed: Testbed) -> Iterator[EveryWay]:
    """Every way to become a user, each with a pod of every user's that runs."""
    with every_way(testbed) as ways:
        pods = [
            ways.pod(way, user, way, "id -un; trap 'exit 3' TERM; sleep 600 & wait") for way in WAYS for user in USERS
        ]
        testbed.apply(*pods)
        yield ways


def as_user(pods: Pods, user: str, script: str) -> str:
    """Run a shell script as a user on the login node, with the pods' root directory as its first argument."""
    root = f"/home/{user}/.slurmlet/{pods.agent.node}"
    return pods.testbed.run(*pods.testbed.inside("sh", "-ec", script, "sh", root, user=user)).stdout


def test_each_namespaces_pods_are_jobs_of_its_own_user_from_submission_to_logs_and_deletion(
    tenants: dict[str, Pods], testbed: Testbed
) -> None:
    for pods in tenants.values():
        pods.run("who", "sh", "-c", "id -u; exit 3")
    for user, pods in tenants.items():
        pods.wait_phase("who", "Failed")
        assert pods.terminated("who")["exitCode"] == 3
        uid = testbed.run(*pods.agent.inside("id", "-u", user)).stdout
        assert pods.kubectl("logs", "who") == uid
        pods.run("lasting", "sleep", "600")
        pods.wait_phase("lasting", "Running")
        job = max(all_jobs(testbed, pods), key=int)  # submitted after "who"
        said = testbed.run(*pods.agent.inside("scontrol", "show", "job", job)).stdout
        assert f"UserId={user}(" in said
        pods.kubectl("delete", "pod", "lasting", "who", "--timeout=60s")
        assert user not in testbed.run(*pods.agent.inside("squeue", "-h", "-o", "%u", "-j", job)).stdout


def all_jobs(testbed: Testbed, pods: Pods) -> list[str]:
    """The ids of all jobs of a namespace that are in the queue, as root sees it."""
    names = testbed.run(*pods.agent.inside("squeue", "-h", "-t", "all", "-o", "%i %j")).stdout.splitlines()
    return [name.split()[0] for name in names if name.split()[1].startswith(f"{pods.namespace}/")]


@pytest.mark.parametrize("way", WAYS)
def test_however_the_agent_becomes_a_user_the_job_is_the_users_and_clean(
    private: bool, ways: EveryWay, testbed: Testbed, way: str
) -> None:
    for user, pods in ways.pods.items():
        pods.wait_phase(way, "Running")
        uid = uid_of(testbed, user)
        (job,) = jobs_of(testbed, pods, way)
        said = testbed.run(*testbed.inside("scontrol", "show", "job", job)).stdout
        assert f"UserId={user}({uid})" in said
        others = testbed.run(
            *testbed.inside("squeue", "-h", "-o", "%i", user=next(name for name in USERS if name != user))
        )
        assert (job in others.stdout.split()) is not private
        of_job = [found for found in environments(testbed, user) if found.get("SLURM_JOB_ID") == job]
        assert of_job
        for found in of_job:
            assert (found.get("HOME"), found.get("USER"), found.get("LOGNAME")) == (f"/home/{user}", user, user)
        root = Layout.from_environment().site / "home" / user / ".slurmlet" / ways.node(way)
        (directory,) = (path for path in (root / "pods").iterdir() if path.name == pods.get(way)["metadata"]["uid"])  # type: ignore[index]
        assert [mode_of(path) for path in (root, root / "pods", directory)] == [(uid, 0o700)] * 3
        assert pods.kubectl("logs", way) == f"{user}\n"
        assert pods.kubectl("exec", way, "--", "id", "-un") == f"{user}\n"


def test_nothing_of_the_services_environment_reaches_a_users_process(ways: EveryWay, testbed: Testbed) -> None:
    found = [found for user in USERS for found in environments(testbed, user)]
    assert len(found) >= len(WAYS) * len(USERS)
    assert not any(SECRET in variables.values() for variables in found)


def test_however_the_agent_becomes_a_user_it_ends_the_users_jobs(ways: EveryWay, testbed: Testbed) -> None:
    jobs = [job for pods in ways.pods.values() for way in WAYS for job in jobs_of(testbed, pods, way)]
    for pods in ways.pods.values():
        pods.kubectl("delete", "pod", *WAYS, "--wait=false")
    for pods in ways.pods.values():
        for way in WAYS:
            pods.wait_gone(way)
    queue = testbed.run(*testbed.inside("squeue", "-h", "-o", "%u", "-j", ",".join(jobs)), check=False).stdout
    assert not set(queue.split()) & set(USERS)


def jobs_of(testbed: Testbed, pods: Pods, name: str) -> list[str]:
    """The ids of all jobs of a pod that are in the queue, as root sees it."""
    pod = pods.get(name)
    assert pod is not None
    job_name = f"{pods.namespace}/{name}:{pod['metadata']['uid']}"
    return testbed.run(*testbed.inside("squeue", "-h", "-t", "all", "-o", "%i", "--name", job_name)).stdout.split()


def test_nobody_reads_another_users_job_directories(tenants: dict[str, Pods], testbed: Testbed) -> None:
    alice = tenants["alice"]
    alice.run("secret", "sh", "-c", "cat ~/.slurmlet/*/owner; sleep 600")
    alice.wait_phase("secret", "Running")
    root = f"/home/alice/.slurmlet/{alice.agent.node}"
    refused = testbed.run(*testbed.inside("ls", root, user="bob"), check=False)
    assert "Permission denied" in refused.stderr
    alice.kubectl("delete", "pod", "secret", "--timeout=60s")


def test_a_pod_cannot_say_who_it_is(tenants: dict[str, Pods], testbed: Testbed) -> None:
    bob = tenants["bob"]
    alices = int(testbed.run(*bob.agent.inside("id", "-u", "alice")).stdout)
    pod = manifest("impostor", bob.agent, "id", "-u")
    pod["spec"]["securityContext"] = {"runAsUser": alices}
    before = all_jobs(testbed, bob)
    bob.apply(pod)
    status = bob.wait_phase("impostor", "Failed")
    assert "runAsUser" in json.dumps(status)
    assert set(all_jobs(testbed, bob)) <= set(before)


def test_a_namespace_that_no_rule_names_runs_nothing(tenants: dict[str, Pods], testbed: Testbed) -> None:
    agent = tenants["alice"].agent
    with contextmanager(make_pods)(testbed, agent) as nobodys:
        nobodys.run("stranger", "true")
        status = nobodys.wait_phase("stranger", "Failed")
        assert nobodys.namespace in json.dumps(status)
        assert all_jobs(testbed, nobodys) == []


def test_a_directory_that_another_user_made_for_a_pod_takes_nothing_of_it_over(tenants: dict[str, Pods]) -> None:
    alice, agent = tenants["alice"], tenants["alice"].agent
    alice.run("coveted", "sh", "-c", "echo alices; sleep 600")
    alice.wait_phase("coveted", "Running")
    uid = alice.kubectl("get", "pod", "coveted", "-o", "jsonpath={.metadata.uid}")
    tenants["bob"].run("first", "true")  # so that there is a root of bob's
    tenants["bob"].wait_phase("first", "Succeeded")
    plant = f"""mkdir -p "$1/pods/{uid}/logs/main" "$1/pods/{uid}/run"; echo 1 > "$1/pods/{uid}/job-id"
        echo '{{"uid": "{uid}"}}' > "$1/pods/{uid}/pod.json"
        echo '2026-01-01T00:00:00.0Z stdout F bobs' > "$1/pods/{uid}/logs/main/0.log"
    """
    as_user(alice, "bob", plant)
    agent.kill()
    agent.start()
    agent.wait_ready()
    assert alice.kubectl("logs", "coveted") == "alices\n"
    assert alice.kubectl("exec", "coveted", "--", "id", "-un").strip() == "alice"
    wait_until("the agent to say so", lambda: f"user bob has a directory for pod {uid}" in agent.log.read_text())
    alice.kubectl("delete", "pod", "coveted", "--timeout=60s")
    as_user(alice, "bob", f'rm -r "$1/pods/{uid}"')


def test_a_namespace_given_to_another_user_keeps_the_jobs_it_has(tenants: dict[str, Pods], testbed: Testbed) -> None:
    alice, agent = tenants["alice"], tenants["alice"].agent
    for name, script in {"runs": "id -un; sleep 600", "queued": "id -un"}.items():
        pod = manifest(name, agent, "sh", "-c", script)
        pod["metadata"]["annotations"] = {"slurmlet.io/licenses": "ansys:2"}  # there are two: one waits for the other
        alice.apply(pod)
        alice.wait_phase("runs", "Running")
    alice.run("leaves", "sleep", "600")
    alice.wait_phase("leaves", "Running")
    alice.wait("queued", "to wait in the queue", lambda status: "PENDING" in status["message"])
    queued, leaves = jobs_of(testbed, alice, "queued"), jobs_of(testbed, alice, "leaves")
    before = agent.settings["policy"]
    given = [
        {"namespaces": [pods.namespace], "user": "bob" if pods is alice else user} for user, pods in tenants.items()
    ]
    agent.kill()
    agent.settings["policy"] = given
    try:
        agent.start()
        agent.wait_ready()
        alice.kubectl("delete", "pod", "leaves", "--wait=false")
        for name in ("runs", "queued", "leaves"):
            wait_until("the event", lambda name=name: "no rule of the policy names" in json.dumps(alice.events(name)))  # type: ignore[misc]
        phases = [alice.status(name)["phase"] for name in ("runs", "queued", "leaves")]
        assert phases == ["Running", "Pending", "Running"], "nothing is concluded of who can't be asked"
        assert (jobs_of(testbed, alice, "queued"), jobs_of(testbed, alice, "leaves")) == (queued, leaves)
        agent.kill()
        agent.settings["policy"] = [*given, {"namespaces": [], "user": "alice"}]
        agent.start()
        agent.wait_ready()
        alice.wait_gone("leaves")
        alice.run("later", "id", "-un")
        alice.wait_phase("later", "Succeeded")
        assert alice.kubectl("logs", "later") == "bob\n"
        assert (alice.status("runs")["phase"], alice.status("queued")["phase"]) == ("Running", "Pending")
        assert alice.kubectl("logs", "runs") == alice.kubectl("exec", "runs", "--", "id", "-un") == "alice\n"
        alice.kubectl("delete", "pod", "runs", "--timeout=60s")
        alice.wait_phase("queued", "Succeeded")
        assert alice.kubectl("logs", "queued") == "alice\n"
        assert jobs_of(testbed, alice, "queued") == queued
        alice.kubectl("delete", "pod", "queued", "later", "--timeout=60s")
        wait_until("their directories to be gone", lambda: not as_user(alice, "alice", 'ls "$1/pods"').split())
    finally:
        agent.kill()
        agent.settings["policy"] = before
        agent.start()
        agent.wait_ready()


def test_a_user_whose_root_is_of_no_use_waits_alone_over_a_restart_too(tenants: dict[str, Pods]) -> None:
    alice, carol = tenants["alice"], tenants["carol"]
    agent, earlier = carol.agent, all_jobs(carol.testbed, carol)
    carol.run("before", "sleep", "600")
    carol.wait_phase("before", "Running")
    as_user(carol, "carol", 'chmod 000 "$1"')
    try:
        agent.kill()
        agent.start()
        agent.wait_ready()
        carol.run("waiting", "true")
        alice.run("going-on", "true")
        alice.wait_phase("going-on", "Succeeded")
        wait_until("carol to be told", lambda: "as user carol" in json.dumps(carol.get("waiting")["status"]))
        assert carol.get("before")["status"]["phase"] == "Running"
        node = carol.testbed.get("node", agent.node)
        assert node is not None
        conditions = {condition["type"]: condition["status"] for condition in node["status"]["conditions"]}
        assert conditions["SlurmReachable"] == "True"
    finally:
        as_user(carol, "carol", 'chmod 700 "$1"')
    carol.wait_phase("waiting", "Succeeded")
    carol.kubectl("delete", "pod", "before", "--timeout=60s")
    assert len(set(all_jobs(carol.testbed, carol)) - set(earlier)) == 2  # each pod was submitted once
