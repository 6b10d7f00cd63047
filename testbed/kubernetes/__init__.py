"""The testbed's Kubernetes: etcd, kube-apiserver, kube-scheduler, kube-controller-manager, and a CSR approver."""
