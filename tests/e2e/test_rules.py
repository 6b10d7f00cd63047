"""Rules of images, volumes, hooks and ends of containers that a small pod each shows; all of them are made at once."""

from collections.abc import Iterator
from itertools import pairwise

import pytest

from testbed.paths import Layout
from testbed.ports import Port

from .agents import Agent, running
from .pods import Manifest, Pods, make_pods, manifest
from .proxy import Proxy
from .test_probes import free_ports
from .test_volumes import in_site, volumes
from .testbed import Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e

DATA = "/home/alice/rules-test"
FINALIZER = "slurmlet.io/test"
STAYS = "trap 'exit 0' TERM; while :; do sleep 0.2; done"
SEEN = """
touch /root-is-writable 2>/dev/null || echo read-only
df /dev/shm | tail -1; head -c 100000000 /dev/zero > /dev/shm/big && echo large
echo $POD_IP $POD_IPS $HOST_IP $CPUS $MEMORY
"""
LOOPS = "date +%s >> /d/runs; cat /d/runs; exit 1"


@pytest.fixture(scope="module")
def line(testbed: Testbed) -> Iterator[Proxy]:
    """A slow line to the registry."""
    host, _, port = testbed.environment["SLURMLET_TESTBED_REGISTRY"].partition(":")
    with Proxy(host, int(port)).running() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def node(testbed: Testbed, line: Proxy) -> Iterator[Agent]:
    registries = [
        {"registry": "docker.io", "mirror": Layout.from_environment().endpoint(Port.REGISTRY), "insecure": True},
        {"registry": "slow.test", "mirror": f"127.0.0.1:{line.port}", "insecure": True},
    ]
    settings = {
        "registries": registries,
        "host_paths": [DATA],
        "image_paths": [f"{DATA}/images"],
        "persistent_volumes": [
            {"csi": {"driver": "site.test"}, "path": DATA + "/csi/{handle}"},
            {"storage_class": "site-fast", "path": DATA + "/fast/{volume}"},
        ],
    }
    in_site(testbed, "rm", "-rf", DATA)
    in_site(testbed, "mkdir", "-p", f"{DATA}/images", f"{DATA}/csi/7", f"{DATA}/file.d")
    in_site(testbed, "touch", f"{DATA}/file")
    source = f"docker://{testbed.environment['SLURMLET_TESTBED_REGISTRY']}/library/busybox:1.36"
    sif, tree = f"{DATA}/images/busybox.sif", f"{DATA}/images/tree"
    home = ("env", "HOME=/home/alice")
    in_site(testbed, *home, "apptainer", "--silent", "pull", "--no-https", sif, source)
    in_site(testbed, *home, "apptainer", "--silent", "build", "--sandbox", tree, sif)
    # Nothing else has pulled through the slow line, nor what is never pulled.
    images = {"images": "{home}/.slurmlet-images-rules"}
    in_site(testbed, "rm", "-rf", "/home/alice/.slurmlet-images-rules")
    yield from running(Agent(testbed, "ssh", index=22, settings={"pods": settings, "slurm": images}))


def claimed(namespace: str, name: str, source: Manifest, storage_class: str) -> tuple[Manifest, Manifest]:
    """A PersistentVolumeClaim, and the volume that is for it alone."""
    size, common = {"storage": "1Gi"}, {"accessModes": ["ReadWriteMany"], "storageClassName": storage_class}
    volume = {"capacity": size, "claimRef": {"namespace": namespace, "name": name}, **source}
    return (
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
         "spec": {**common, "volumeName": f"{namespace}-{name}", "resources": {"requests": size}}},
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{namespace}-{name}"},
         "spec": {**common, **volume, "persistentVolumeReclaimPolicy": "Retain"}},
    )  # fmt: skip


def field(name: str, path: str) -> Manifest:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def amount(name: str, resource: str, divisor: str) -> Manifest:
    return {"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}}


def of_images(node: Agent) -> Iterator[Manifest]:
    for name, image in (
        ("sif", f"{DATA}/images/busybox.sif"),
        ("tree", f"{DATA}/images/tree"),
        ("outside", "/etc/x.sif"),
    ):
        yield manifest(name, node, "sh", "-c", "echo from $0", name, image=image)
    yield manifest("always", node, "true", imagePullPolicy="Always")
    yield manifest("never", node, "true", image="python:3.11-slim", imagePullPolicy="Never")
    yield manifest("invalid", node, "true", image="Upper/Case:1:2")
    yield manifest("slow", node, "true", image="slow.test/slurmlet/test-entrypoint:1")


def of_volumes(node: Agent, namespace: str) -> Iterator[Manifest]:
    made = manifest("made", node, "sh", "-c", "echo x > /dir/f; echo y > /file; stat -c %a /dir /file")
    yield volumes(
        made,
        {"/dir": "dir", "/file": "file"},
        dir={"hostPath": {"path": f"{DATA}/new/dir", "type": "DirectoryOrCreate"}},
        file={"hostPath": {"path": f"{DATA}/newfile", "type": "FileOrCreate"}},
    )
    wrong = manifest("wrong", node, "true")
    yield volumes(wrong, {"/d": "d"}, d={"hostPath": {"path": f"{DATA}/file", "type": "Directory"}})
    csi = {"csi": {"driver": "site.test", "volumeHandle": "7"}}
    local = {"nfs": {"server": "any.test", "path": "/x"}}
    yield from (*claimed(namespace, "by-csi", csi, ""), *claimed(namespace, "by-class", local, "site-fast"))
    claims = {name: {"persistentVolumeClaim": {"claimName": name}} for name in ("by-csi", "by-class")}
    script = "echo csi > /csi/f; echo class > /class/f"
    yield volumes(manifest("claims", node, "sh", "-c", script), {"/csi": "by-csi", "/class": "by-class"}, **claims)


def of_containers(node: Agent, port: int) -> Iterator[Manifest]:
    limits = {"limits": {"cpu": "2", "memory": "256Mi"}}
    env = [field("POD_IP", "status.podIP"), field("POD_IPS", "status.podIPs"), field("HOST_IP", "status.hostIP"),
           amount("CPUS", "limits.cpu", "1"), amount("MEMORY", "limits.memory", "1Mi")]  # fmt: skip
    seen = manifest("seen", node, "sh", "-c", SEEN, env=env, resources=limits)
    seen["spec"]["containers"][0]["securityContext"] = {"readOnlyRootFilesystem": True}
    yield seen
    loops = manifest("loops", node, "sh", "-c", LOOPS)
    loops["spec"]["restartPolicy"] = "Always"
    yield volumes(loops, {"/d": "d"}, d={"emptyDir": {}})
    script = "head -c 8000 /dev/zero | tr '\\0' m > /dev/termination-log; exit 3"
    for name, count in (("one", 1), ("four", 4)):
        pod = manifest(name, node, "sh", "-c", script)
        first = pod["spec"]["containers"][0]
        pod["spec"]["containers"] = [{**first, "name": f"main{n}", "resources": {}} for n in range(count)]
        yield pod
    yield hooked(node, port)


def hooked(node: Agent, port: int) -> Manifest:
    """A pod with HTTP hooks, which its sidecar answers, and a hook that only waits."""

    def get(path: str) -> Manifest:
        return {"httpGet": {"path": path, "port": port, "httpHeaders": [{"name": "X-From", "value": path}]}}

    server = {
        "name": "server", "image": "busybox:1.36", "restartPolicy": "Always", "resources": {},
        "command": ["sh", "-c", f"mkdir /w; touch /w/begun /w/ending; exec httpd -f -vv -p {port} -h /w"],
        "startupProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1, "failureThreshold": 60},
    }  # fmt: skip
    pod = manifest("hooked", node, "sh", "-c", STAYS)
    asks = pod["spec"]["containers"][0]
    sleeps = {**asks, "name": "sleeps", "resources": {}, "lifecycle": {"preStop": {"sleep": {"seconds": 4}}}}
    asks["lifecycle"] = {"postStart": get("/begun"), "preStop": get("/ending")}
    pod["spec"] |= {"initContainers": [server], "containers": [asks, sleeps], "terminationGracePeriodSeconds": 60}
    pod["metadata"]["finalizers"] = [FINALIZER]
    return pod


@pytest.fixture(scope="module")
def pods(testbed: Testbed, node: Agent, line: Proxy) -> Iterator[Pods]:
    """All pods of the page."""
    (port,) = free_ports(1)
    for made in make_pods(testbed, node):
        line.slow(5)
        every = [*of_images(node), *of_volumes(node, made.namespace), *of_containers(node, port)]
        made.apply(*(each for each in every if each["kind"] != "PersistentVolume"))
        ours = [each for each in every if each["kind"] == "PersistentVolume"]
        testbed.apply(*ours)
        yield made
        for each in ours:
            testbed.kubectl("delete", "persistentvolume", each["metadata"]["name"], "--wait=false")


def log(pods: Pods, name: str) -> list[str]:
    pods.wait_phase(name, "Succeeded", seconds=120)
    return pods.kubectl("logs", name).splitlines()


def waiting(pods: Pods, name: str, reason: str) -> Manifest:
    """Wait until the container waits for this reason; its state then."""
    status = pods.wait(
        name, f"to wait: {reason}", lambda s: s["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    )
    found: Manifest = status["containerStatuses"][0]["state"]["waiting"]
    return found


@pytest.mark.parametrize("name", ["sif", "tree"])
def test_an_image_may_be_a_file_or_a_tree_of_the_sites(pods: Pods, name: str) -> None:
    assert log(pods, name) == [f"from {name}"]
    assert pods.container(name)["imageID"].endswith(pods.container(name)["image"])
    assert "Pulling" not in {event["reason"] for event in pods.events(name)}


def test_a_path_that_the_site_does_not_allow_is_refused_by_its_field(pods: Pods) -> None:
    assert "spec.containers[0].image" in pods.wait_phase("outside", "Failed")["message"]


def test_pull_policies_and_names_have_the_kubelets_reasons(pods: Pods) -> None:
    assert waiting(pods, "never", "ErrImageNeverPull")["message"].endswith("is not present with pull policy of Never")
    pods.wait_event("never", "ErrImageNeverPull")
    assert "invalid reference format" in waiting(pods, "invalid", "InvalidImageName")["message"]
    pods.wait_event("invalid", "InspectFailed")
    log(pods, "always")
    again = manifest("again", pods.agent, "true", imagePullPolicy="Always")
    pods.apply(again)
    log(pods, "again")
    pods.wait_events("again", "Pulling", "Pulled")  # asked for, though it is here


def test_host_paths_are_made_where_their_type_says_so(pods: Pods, testbed: Testbed) -> None:
    assert log(pods, "made") == ["755", "644"]
    assert in_site(testbed, "cat", f"{DATA}/new/dir/f", f"{DATA}/newfile").split() == ["x", "y"]
    pods.wait_event("wrong", "FailedMount", f"hostPath type check failed: {DATA}/file is not a directory")


def test_claims_are_where_the_rules_for_their_driver_and_storage_class_say(pods: Pods, testbed: Testbed) -> None:
    pods.wait_event("claims", "FailedMount")  # the site has not made the place yet
    in_site(testbed, "mkdir", "-p", f"{DATA}/fast/{pods.namespace}-by-class")
    log(pods, "claims")
    assert in_site(testbed, "cat", f"{DATA}/csi/7/f", f"{DATA}/fast/{pods.namespace}-by-class/f").split() == [
        "csi",
        "class",
    ]


def test_what_only_the_node_knows_is_in_the_environment_and_the_root_is_read_only(pods: Pods) -> None:
    first, memory, large, values = log(pods, "seen")
    status = pods.status("seen")
    assert first == "read-only"
    assert memory.split()[5] == "/dev/shm"
    assert int(memory.split()[1]) >= 100_000, "KiB: not the 64 MiB that others give"
    assert large == "large"
    assert values.split() == [status["podIP"], status["podIPs"][0]["ip"], status["podIP"], "2", "256"]


def test_termination_messages_share_twelve_kibibytes_and_each_has_four_at_most(pods: Pods) -> None:
    for name, count, size in (("one", 1, 4096), ("four", 4, 3072)):
        status = pods.wait_phase(name, "Failed", seconds=120)
        ends = [each["state"]["terminated"] for each in status["containerStatuses"]]
        assert [len(end["message"]) for end in ends] == [size] * count
        assert {each["restartCount"] for each in status["containerStatuses"]} == {0}, "restartPolicy Never"


def test_hooks_ask_by_http_and_wait(pods: Pods) -> None:
    pods.wait("hooked", "to run", lambda s: all(each["ready"] for each in s["containerStatuses"]), seconds=120)
    pods.kubectl("delete", "pod", "hooked", "--wait=false")
    pods.wait_phase("hooked", "Succeeded", seconds=120)
    said = pods.kubectl("logs", "hooked", "--container=server")
    assert [word for word in ("url:/begun", "url:/ending") if word in said] == ["url:/begun", "url:/ending"], said
    times = {
        each["name"]: each["state"]["terminated"]["finishedAt"] for each in pods.status("hooked")["containerStatuses"]
    }
    assert times["main"] < times["sleeps"], "the one that slept ended later"
    pods.kubectl("patch", "pod", "hooked", "--type=merge", '--patch={"metadata":{"finalizers":null}}')


def test_a_slow_pull_says_that_it_goes_on(pods: Pods, line: Proxy) -> None:
    def told() -> list[str]:
        return [event["message"] for event in pods.events("slow") if event["message"].startswith("Still pulling")]

    (words, *_) = wait_until("the progress of the pull", told, seconds=120)
    assert words.startswith('Still pulling image "slow.test/slurmlet/test-entrypoint:1" after ')
    line.slow(0)
    log(pods, "slow")
    pods.wait_event("slow", "Pulled")


def test_the_back_off_is_ten_twenty_and_forty_seconds(pods: Pods) -> None:
    pods.wait("loops", "to have run five times", lambda s: s["containerStatuses"][0]["restartCount"] >= 4, seconds=150)
    times = [int(word) for word in pods.kubectl("logs", "loops").split()]
    waits = [after - before for before, after in pairwise(times)]
    assert all(expected <= wait < expected + 9 for expected, wait in zip((0, 10, 20, 40), waits, strict=False)), waits
