"""Configuration, storage, images and the API server as pods see them. Names follow the first-class node's checklist."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from testbed.paths import Layout
from testbed.ports import Port
from testbed.registry import PRIVATE_PASSWORD, PRIVATE_USER

from .agents import SITE_PYTHON, Agent, running
from .pods import Manifest, Pods, make_pods, manifest
from .testbed import Testbed
from .waiting import wait_until

pytestmark = pytest.mark.e2e

DATA = "/home/alice/volumes-test"
NFS = {"server": "nfs.test", "path": "/export/teams"}
FOLLOW = """
while :; do
  config="/config/$(readlink /config/..data)"  # both files of one version; the next one may come between two looks
  now="$(cat $config/a)$(cat $config/b) $(cat /secret/word) $(cat /all/a) $(cat /all/labels) sub=$(cat /sub)"
  [ "$now" = "$before" ] || echo "$now"
  before="$now"
  sleep 0.2
done
"""
CLIENT = """
from kubernetes import client, config
config.load_incluster_config()
namespace, token = (open("/var/run/secrets/kubernetes.io/serviceaccount/" + name).read() for name in ("namespace", "token"))
found = client.CoreV1Api().list_namespaced_pod(namespace, _request_timeout=30).items
print([pod.metadata.name for pod in found if pod.metadata.name == "client"])
print("TOKEN", token)
other = client.Configuration.get_default_copy()
other.tls_server_name, other.retries = "another.test", False
try:
    client.CoreV1Api(client.ApiClient(other)).list_namespaced_pod(namespace, _request_timeout=30)
except Exception as error:
    print("REFUSED", "CERTIFICATE_VERIFY_FAILED" in str(error) or "doesn't match" in str(error), ascii(str(error)))
"""
# The site's own Python, which has the official client: any container may have it for its paths.
SOFTWARE = ("/usr", "/lib", "/lib64", "/opt/slurmlet/venv")


@pytest.fixture(scope="module")
def node(testbed: Testbed) -> Iterator[Agent]:
    """An agent whose site knows persistent volumes, host paths and where pods reach the API server."""
    layout = Layout.from_environment()
    registries = [
        {"registry": "docker.io", "mirror": layout.endpoint(Port.REGISTRY), "insecure": True},
        {"registry": layout.endpoint(Port.PRIVATE_REGISTRY), "insecure": True},
    ]
    settings = {
        "registries": registries,
        "host_paths": [DATA, *SOFTWARE],
        "persistent_volumes": [{"nfs": NFS, "path": DATA + "/teams/{rest}"}],
        "api_server": layout.endpoint(Port.API_SERVER),
    }
    in_site(testbed, "rm", "-rf", DATA)
    in_site(testbed, "mkdir", "-p", f"{DATA}/teams/physics")
    # What another test pulled without a secret is everybody's.
    images = {"images": "{home}/.slurmlet-images-volumes"}
    yield from running(Agent(testbed, "ssh", index=17, settings={"pods": settings, "slurm": images}))


@pytest.fixture(scope="module")
def pods(testbed: Testbed, node: Agent) -> Iterator[Pods]:
    """One namespace for this module's pods."""
    yield from make_pods(testbed, node)


def in_site(testbed: Testbed, *argv: str) -> str:
    """Run a command as the Slurm user where the site's files are; what it prints."""
    enter = ("nsenter", "-t", testbed.environment["SLURMLET_TESTBED_SITE_PID"], "-m", "--")
    return testbed.run(*enter, "setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "--", *argv).stdout


def config_map(name: str, **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def volumes(pod: Manifest, mounts: dict[str, Any], **sources: Any) -> Manifest:
    """Give a pod volumes by name, and its container mounts by path: a volume's name, or a mount without its path."""
    pod["spec"]["volumes"] = [{"name": name, **source} for name, source in sources.items()]
    pod["spec"]["containers"][0]["volumeMounts"] = [
        {"mountPath": path, **({"name": mount} if isinstance(mount, str) else mount)} for path, mount in mounts.items()
    ]
    return pod


@pytest.fixture(scope="module")
def live(pods: Pods, node: Agent) -> str:
    """A pod whose content has been changed once it ran: what it saw is looked at last."""
    pods.apply(config_map("live", a="1", b="1"), secret("live", word="old"))
    pod = manifest("live", node, "sh", "-c", FOLLOW)
    pod["metadata"]["labels"] = {"team": "blue"}
    labels = {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    volumes(
        pod,
        {"/config": "config", "/secret": "secret", "/all": "all", "/sub": {"name": "config", "subPath": "a"}},
        config={"configMap": {"name": "live"}},
        secret={"secret": {"secretName": "live"}},
        all={"projected": {"sources": [{"configMap": {"name": "live"}}, labels]}},
    )
    pods.apply(pod)
    pods.wait_phase("live", "Running")
    wait_until("the first content", lambda: seen(pods), seconds=30)
    pods.apply(config_map("live", a="2", b="2"), secret("live", word="new"))
    # These take their time, and may do so while the other tests are at work.
    client = manifest("client", node, SITE_PYTHON, "-c", CLIENT)
    names = {path: path.strip("/").replace("/", "-") for path in SOFTWARE}
    volumes(
        client,
        {path: {"name": name, "readOnly": True} for path, name in names.items()},
        **{name: {"hostPath": {"path": path}} for path, name in names.items()},
    )
    del client["spec"]["automountServiceAccountToken"]
    client["spec"]["restartPolicy"] = "OnFailure"
    greedy = manifest("greedy", node, "sh", "-c", "head -c 3000000 /dev/zero > /d/file; sleep 600")
    volumes(greedy, {"/d": "d"}, d={"emptyDir": {"sizeLimit": "1Mi"}})
    pods.apply(*lister(pods), client, greedy)
    pods.kubectl("label", "pod", "live", "team=green", "--overwrite")
    return "live"


def lister(pods: Pods) -> tuple[Manifest, Manifest]:
    """What lets the namespace's default account list pods."""
    group = {"apiVersion": "rbac.authorization.k8s.io/v1"}
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lister"}
    account = {"kind": "ServiceAccount", "name": "default", "namespace": pods.namespace}
    return (
        {**group, "kind": "Role", "metadata": {"name": "lister"}, "rules": rules},
        {**group, "kind": "RoleBinding", "metadata": {"name": "lister"}, "roleRef": role, "subjects": [account]},
    )


def seen(pods: Pods) -> list[str]:
    return pods.kubectl("logs", "live").splitlines()


def last_write(pods: Pods, kind: str, name: str) -> datetime:
    """When an object was last written, in whole seconds, as the API server tells."""
    found = json.loads(pods.kubectl("get", kind, name, "--output=json", "--show-managed-fields"))
    return max(datetime.fromisoformat(write["time"]) for write in found["metadata"]["managedFields"])


def test_37_env_order_expansion_prefix_and_optional_references(pods: Pods, node: Agent, live: str) -> None:
    pods.apply(config_map("env", KEY="map", SHARED="map"), secret("env", KEY="secret"))
    env = [
        {"name": "FIRST", "value": "$(P_KEY)/$(SECOND)/$$(P_KEY)"},
        {"name": "SECOND", "value": "$(FIRST)"},
        {"name": "SHARED", "value": "own"},
        {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}},
    ]
    env_from = [
        {"prefix": "P_", "configMapRef": {"name": "env"}},
        {"configMapRef": {"name": "env"}},
        {"secretRef": {"name": "env"}},
        {"configMapRef": {"name": "none", "optional": True}},
    ]
    script = 'echo "$FIRST $SECOND $SHARED $KEY ${GONE-unset}"'
    pods.run("env", "sh", "-c", script, env=env, envFrom=env_from)
    pods.wait_phase("env", "Succeeded")
    first = "map/$(SECOND)/$(P_KEY)"
    assert pods.kubectl("logs", "env").strip() == f"{first} {first} own secret unset"


def test_38_missing_secret_of_a_volume_recovers_when_created(pods: Pods, node: Agent, live: str) -> None:
    pod = manifest("late", node, "cat", "/s/word")
    pods.apply(volumes(pod, {"/s": "s"}, s={"secret": {"secretName": "late", "defaultMode": 0o400}}))
    pods.wait_event("late", "FailedMount")
    assert pods.container("late")["state"]["waiting"]["reason"] == "ContainerCreating"
    pods.apply(secret("late", word="here"))
    pods.wait_phase("late", "Succeeded")
    assert pods.kubectl("logs", "late") == "here"


def test_39_service_variables_and_enable_service_links(pods: Pods, node: Agent, live: str) -> None:
    ports = [{"name": "http", "port": 80}]
    pods.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web-app"}, "spec": {"ports": ports}})
    script = "env | grep -E '^(WEB_APP|KUBERNETES)_(SERVICE_HOST|SERVICE_PORT)=' | sort"
    linked, bare = manifest("linked", node, "sh", "-c", script), manifest("bare", node, "sh", "-c", script)
    bare["spec"]["enableServiceLinks"] = False
    wait_until(
        "the Service's address", lambda: pods.kubectl("get", "service", "web-app", "-ojsonpath={.spec.clusterIP}")
    )
    pods.apply(linked, bare)
    host, _, port = Layout.from_environment().endpoint(Port.API_SERVER).partition(":")
    own = [f"KUBERNETES_SERVICE_HOST={host}", f"KUBERNETES_SERVICE_PORT={port}"]
    address = pods.kubectl("get", "service", "web-app", "-ojsonpath={.spec.clusterIP}")
    for name, more in (("linked", [f"WEB_APP_SERVICE_HOST={address}", "WEB_APP_SERVICE_PORT=80"]), ("bare", [])):
        pods.wait_phase(name, "Succeeded")
        assert pods.kubectl("logs", name).splitlines() == own + more


def test_42_modes_items_and_empty_dirs_that_are_shared_and_removed(
    pods: Pods, node: Agent, testbed: Testbed, live: str
) -> None:
    pods.apply(config_map("modes", a="1", b="2"))
    items = [{"key": "a", "path": "deep/x", "mode": 0o400}, {"key": "b", "path": "y"}]
    script = """
    stat -L -c '%a %n' /c/deep/x /c/y; touch /c/new 2>/dev/null || echo read-only
    cat /shared/word; touch /shared/ro 2>/dev/null || echo read-only
    cat /dev/shm/word; grep -w "$(hostname)" /etc/hosts | wc -l; grep -w db.internal /etc/hosts; echo /tmp/slurmlet-*
    """
    pod = manifest("modes", node, "sh", "-c", script)
    volumes(
        pod,
        {"/c": "c", "/shared": {"name": "disk", "readOnly": True}, "/dev/shm": "memory"},
        c={"configMap": {"name": "modes", "defaultMode": 0o640, "items": items}},
        disk={"emptyDir": {"sizeLimit": "1Gi"}},
        memory={"emptyDir": {"medium": "Memory"}},
    )
    pod["spec"]["hostAliases"] = [{"ip": "10.1.2.3", "hostnames": ["db.internal"]}]
    mounts = [{"name": "disk", "mountPath": "/disk"}, {"name": "memory", "mountPath": "/dev/shm"}]
    writer = {"command": ["sh", "-c", "echo disk > /disk/word; echo memory > /dev/shm/word"], "volumeMounts": mounts}
    pod["spec"]["initContainers"] = [{"name": "writer", "image": "busybox:1.36", **writer}]
    pods.apply(pod)
    pods.wait_phase("modes", "Succeeded")
    log = pods.kubectl("logs", "modes").splitlines()
    assert log[:6] == ["400 /c/deep/x", "640 /c/y", "read-only", "disk", "read-only", "memory"]
    assert log[6].strip() == "1"
    assert log[7].split() == ["10.1.2.3", "db.internal"]
    found = pods.get("modes")
    assert found is not None
    left = in_site(
        testbed, "find", "/tmp", "/dev/shm", "-maxdepth", "1", "-name", f"slurmlet-{found['metadata']['uid']}*"
    )
    assert left == ""


def test_44_sub_path_escape_is_refused_and_sub_path_expr_expanded(pods: Pods, node: Agent, live: str) -> None:
    def pod(name: str, mount: dict[str, str]) -> Manifest:
        made = manifest(name, node, "sh", "-c", "echo x > /m/file; ls /all/*")
        made["spec"]["containers"][0]["env"] = [
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        ]
        volumes(made, {"/m": {"name": "d", **mount}, "/all": "d"}, d={"emptyDir": {}})
        link = {"command": ["ln", "-s", "/etc", "/all/link"], "volumeMounts": [{"name": "d", "mountPath": "/all"}]}
        made["spec"]["initContainers"] = [{"name": "link", "image": "busybox:1.36", **link}]
        return made

    wrong = {"escape": {"subPath": "link"}, "undefined": {"subPathExpr": "a/$(NONE)"}}
    pods.apply(pod("expr", {"subPathExpr": "logs-$(NAME)"}), *(pod(name, mount) for name, mount in wrong.items()))
    words = {"escape": "leads out of the volume", "undefined": "missing value for NONE"}
    for name, said in words.items():
        pods.wait(name, "to be refused", lambda s: "CreateContainerConfigError" in json.dumps(s))
        waiting = pods.container(name)["state"]["waiting"]
        assert waiting["reason"] == "CreateContainerConfigError"
        assert said in waiting["message"]
        pods.kubectl("delete", "pod", name, "--wait=false")
    pods.wait_phase("expr", "Succeeded")
    assert "file" in pods.kubectl("logs", "expr")


def claim(pods: Pods, name: str, server: str) -> tuple[Manifest, Manifest]:
    """A PersistentVolumeClaim, and an NFS volume that is for it alone."""
    size, modes = {"storage": "1Gi"}, ["ReadWriteMany"]
    common = {"accessModes": modes, "storageClassName": ""}
    reference = {"namespace": pods.namespace, "name": name}
    nfs = {"server": server, "path": NFS["path"] + "/physics"}
    volume = {"capacity": size, "claimRef": reference, "nfs": nfs, "persistentVolumeReclaimPolicy": "Retain"}
    return (
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
         "spec": {**common, "volumeName": f"{pods.namespace}-{name}", "resources": {"requests": size}}},
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{pods.namespace}-{name}"},
         "spec": {**common, **volume}},
    )  # fmt: skip


def test_a_claim_waits_to_be_bound_and_is_the_sites_directory_then(
    pods: Pods, node: Agent, testbed: Testbed, live: str
) -> None:
    wanted, volume = claim(pods, "data", NFS["server"])
    pod = manifest("claim", node, "sh", "-c", "echo from-a-pod > /data/file; touch /ro/x 2>/dev/null || echo read-only")
    source = {"persistentVolumeClaim": {"claimName": "data"}}
    volumes(pod, {"/data": "data", "/ro": {"name": "data", "readOnly": True}}, data=source)
    pod["spec"]["nodeName"] = node.node  # the scheduler itself would wait for the claim
    pods.apply(wanted, pod)
    pods.wait_event("claim", "FailedMount", "is not bound")
    testbed.apply(volume)
    try:
        pods.wait_phase("claim", "Succeeded", seconds=120)
        assert pods.kubectl("logs", "claim").strip() == "read-only"
        assert in_site(testbed, "cat", f"{DATA}/teams/physics/file").strip() == "from-a-pod"
    finally:
        testbed.kubectl("delete", "persistentvolume", volume["metadata"]["name"], "--wait=false")


def test_a_claim_that_no_rule_of_the_site_is_for_is_refused_by_its_field(
    pods: Pods, node: Agent, testbed: Testbed, live: str
) -> None:
    wanted, volume = claim(pods, "foreign", "another.test")
    pods.apply(wanted)
    testbed.apply(volume)
    try:
        pod = manifest("foreign", node, "true")
        pods.apply(volumes(pod, {"/d": "d"}, d={"persistentVolumeClaim": {"claimName": "foreign"}}))
        status = pods.wait_phase("foreign", "Failed", seconds=120)
        assert status["reason"] == "SlurmPolicyDenied"
        assert "spec.volumes[0].persistentVolumeClaim" in status["message"]
    finally:
        testbed.kubectl("delete", "persistentvolume", volume["metadata"]["name"], "--wait=false")


def test_pull_secrets_open_a_private_registry_to_their_pods_alone(pods: Pods, node: Agent, live: str) -> None:
    registry = Layout.from_environment().endpoint(Port.PRIVATE_REGISTRY)
    auth = base64.b64encode(f"{PRIVATE_USER}:{PRIVATE_PASSWORD}".encode()).decode()
    config = json.dumps({"auths": {f"http://{registry}/v2/": {"auth": auth}}})
    pods.apply(
        secret("login", **{".dockerconfigjson": config}) | {"type": "kubernetes.io/dockerconfigjson"},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "puller"},
         "imagePullSecrets": [{"name": "login"}]},
    )  # fmt: skip
    image = {"image": f"{registry}/slurmlet/test-entrypoint:1", "imagePullPolicy": "IfNotPresent"}
    by_pod, by_account = (
        manifest("by-pod", node, "echo", "in", **image),
        manifest("by-account", node, "echo", "in", **image),
    )
    by_pod["spec"]["imagePullSecrets"] = [{"name": "login"}]
    by_account["spec"]["serviceAccountName"] = "puller"
    wait_until("the account", lambda: pods.testbed.get("serviceaccount", "puller", pods.namespace))
    pods.apply(by_pod, by_account)
    for name in ("by-pod", "by-account"):
        pods.wait_phase(name, "Succeeded", seconds=120)
    # It is in the cache by now, and all the same not for a pod that has no login.
    pods.run("nobody", "echo", "in", **image)
    status = pods.wait("nobody", "to be denied", lambda s: "ImagePull" in json.dumps(s))
    assert "pull access denied" in json.dumps(status)
    pods.kubectl("delete", "pod", "nobody", "--wait=false")


def test_43_the_python_clients_in_cluster_configuration_works_with_a_token_that_is_bound_to_its_pod(
    pods: Pods, testbed: Testbed, live: str
) -> None:
    pods.wait_phase("client", "Succeeded", seconds=120)
    listed, line, refused = pods.kubectl("logs", "client").splitlines()
    assert listed == "['client']"
    assert refused.startswith("REFUSED True"), "the server's name is checked"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": line.split()[1]}}
    review = json.loads(testbed.kubectl("create", "--filename=-", "--output=json", stdin=json.dumps(body)))
    found = pods.get("client")
    assert found is not None
    extra = review["status"]["user"]["extra"]
    assert extra["authentication.kubernetes.io/pod-name"] == ["client"]
    assert extra["authentication.kubernetes.io/pod-uid"] == [found["metadata"]["uid"]]


def test_an_empty_dir_beyond_its_limit_evicts_the_pod(pods: Pods, live: str) -> None:
    status = pods.wait_phase("greedy", "Failed", seconds=90)
    assert status["reason"] == "Evicted"
    assert 'EmptyDir volume "d" exceeds the limit "1Mi"' in status["message"]


def test_40_41_content_changes_under_a_running_pod_at_once_and_sub_path_does_not(pods: Pods, live: str) -> None:
    def changed() -> bool:
        last = seen(pods)[-1]
        return last.startswith("22 new 2") and 'team="green"' in last

    wait_until("the new content", changed, seconds=60)
    written = last_write(pods, "configmap", "live")
    stamped = (line.partition(" ") for line in pods.kubectl("logs", "live", "--timestamps").splitlines())
    arrived = next(datetime.fromisoformat(when) for when, _, line in stamped if line.startswith("22 new 2"))
    assert (arrived - written).total_seconds() < 60
    lines = seen(pods)
    assert {line.split()[0] for line in lines} == {"11", "22"}, "both keys change together"
    assert all(line.endswith("sub=1") for line in lines)
