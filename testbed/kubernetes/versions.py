"""Which Kubernetes and etcd the testbed runs. Change them together with go/go.mod (a unit test compares them)."""

KUBERNETES_VERSION = "1.36.3"
KUBERNETES_MINOR = (1, 36)
KUBERNETES_DATE = "2026-07-22T18:07:38Z"
"""Of the release, as the Go module proxy has it."""
ETCD_VERSION = "3.6.8"
ETCD_MINIMUM = (3, 5)
"""kube-apiserver 1.36 uses what etcd 3.4 (Debian's) has not: https://kubernetes.io/docs/tasks/administer-cluster/configure-upgrade-etcd/"""

METRICS_SERVER_VERSION = "0.9.0"
METRICS_SERVER_PACKAGE = "sigs.k8s.io/metrics-server/cmd/metrics-server"
"""Pinned by go/metrics-server/go.mod."""

PROGRAMS = {
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "etcd": "go.etcd.io/etcd/server/v3",
}
"""Each program with the Go package that it is built from."""
