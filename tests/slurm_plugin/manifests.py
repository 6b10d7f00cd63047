"""Pods and sites of the tests: small ones to build on, and one as a real API server returns it."""

from typing import Any

from slurm_plugin.cluster import SlurmNode
from slurm_plugin.config import SiteSettings
from slurm_plugin.jobdir import Root
from slurm_plugin.pod import Pod
from slurm_plugin.translate import Site

Json = dict[str, Any]
UID = "6b0d3b0a-8a8e-4c4f-9d0e-0a1b2c3d4e5f"
DIGEST = "ab" * 32


def container(name: str = "main", **fields: Any) -> Json:
    return {"name": name, "image": "busybox:1.36", **fields}


def make_pod(*containers: Json, annotations: Json | None = None, status: Json | None = None, **spec: Any) -> Pod:
    """A pod ``default/web`` of these containers (one of busybox by default); ``spec``: more fields of its spec."""
    metadata: Json = {"name": "web", "namespace": "default", "uid": UID, "annotations": annotations or {}}
    return Pod.model_validate(
        {
            "metadata": metadata | spec.pop("metadata", {}),
            "spec": {"containers": list(containers) or [container()], **spec},
            "status": status or {},
        }
    )


def requests(**amounts: str | int) -> Json:
    return {"requests": {name.replace("_", "-"): amount for name, amount in amounts.items()}}


def make_site(**sections: Any) -> Site:
    """A site with all defaults but these sections of its settings (``pods``, ``policy``)."""
    settings = SiteSettings.model_validate({"slurm": {"host": {"kind": "local"}}, **sections})
    root = Root("/home/alice/.slurmlet/hpc")
    return Site(settings, root, root.archive(DIGEST), DIGEST, uid=1000)


def make_node(name: str = "n1", **fields: Any) -> SlurmNode:
    """A node of Slurm that is idle; ``fields``: what is to be otherwise."""
    usual: Json = {
        "states": frozenset({"IDLE"}), "cpus": 16, "cpus_allocated": 0, "memory_mib": 16000, "memory_allocated_mib": 0,
        "tmp_mib": 1000, "gres": {}, "gres_allocated": {}, "features": frozenset(), "partitions": frozenset(),
    }  # fmt: skip
    return SlurmNode(name=name, **(usual | fields))


REALISTIC: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "annotations": {"kubectl.kubernetes.io/restartedAt": "2026-11-22T10:00:00Z", "slurmlet.io/partition": "cpu"},
        "creationTimestamp": "2026-11-22T10:00:01Z",
        "generateName": "web-5d8f9c7b6-",
        "generation": 1,
        "labels": {"app": "web", "pod-template-hash": "5d8f9c7b6"},
        "managedFields": [{"manager": "kube-controller-manager", "operation": "Update"}],
        "name": "web-5d8f9c7b6-x2x9z",
        "namespace": "shop",
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f9c7b6", "uid": UID, "controller": True}
        ],
        "resourceVersion": "4711",
        "uid": UID,
    },
    "spec": {
        "affinity": {"nodeAffinity": {}},
        "automountServiceAccountToken": True,
        "containers": [
            {
                "args": ["--verbose"],
                "command": ["/bin/server"],
                "env": [
                    {"name": "A", "value": "$(B)"},
                    {"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
                    {"name": "S", "valueFrom": {"secretKeyRef": {"key": "k", "name": "s", "optional": True}}},
                    {"name": "C", "valueFrom": {"resourceFieldRef": {"divisor": "0", "resource": "limits.cpu"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "P_"}],
                "image": "registry.example.org/shop/server:2.1",
                "imagePullPolicy": "IfNotPresent",
                "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                "livenessProbe": {
                    "failureThreshold": 3,
                    "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "timeoutSeconds": 1,
                },
                "name": "server",
                "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
                "readinessProbe": {"failureThreshold": 3, "tcpSocket": {"port": 8080}, "periodSeconds": 10},
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
                "resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "256Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "privileged": False,
                    "readOnlyRootFilesystem": True,
                    "runAsNonRoot": True,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "volumeMounts": [
                    {"mountPath": "/tmp", "name": "tmp"},
                    {"mountPath": "/etc/app", "name": "config", "subPath": "app", "readOnly": True},
                    {
                        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
                        "name": "kube-api-access-7xk2p",
                        "readOnly": True,
                    },
                ],
            },
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "initContainers": [
            {"image": "busybox", "imagePullPolicy": "Always", "name": "setup", "resources": {}},
            {"image": "busybox", "name": "proxy", "restartPolicy": "Always", "resources": {}},
        ],
        "nodeName": "hpc",
        "nodeSelector": {"kubernetes.io/hostname": "hpc"},
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "serviceAccount": "default",
        "serviceAccountName": "default",
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
            {
                "effect": "NoExecute",
                "key": "node.kubernetes.io/not-ready",
                "operator": "Exists",
                "tolerationSeconds": 300,
            },
            {"key": "virtual-kubelet.io/provider", "operator": "Exists"},
        ],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "volumes": [
            {"emptyDir": {}, "name": "tmp"},
            {"configMap": {"defaultMode": 420, "name": "app"}, "name": "config"},
            {
                "name": "kube-api-access-7xk2p",
                "projected": {
                    "defaultMode": 420,
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
                        {
                            "downwardAPI": {
                                "items": [
                                    {
                                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                                        "path": "namespace",
                                    }
                                ]
                            }
                        },
                    ],
                },
            },
        ],
    },
    "status": {"phase": "Pending", "qosClass": "Burstable"},
}
