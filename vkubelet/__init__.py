"""Everything about Kubernetes: node, lease, pods, status, the content of volumes, the kubelet API."""
