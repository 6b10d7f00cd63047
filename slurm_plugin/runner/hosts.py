"""The pod's /etc/hosts: the node's own, the pod's name, and hostAliases, as for host networking."""

import os
from typing import Sequence

from .plan import Plan


def write_hosts(directory: str, pod: Plan, pod_ips: Sequence[str]) -> str:
    """Write it into a directory of this node; return its path."""
    try:
        with open("/etc/hosts", encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except OSError:
        lines = ["127.0.0.1\tlocalhost"]
    lines += ["", "# Entries of the pod."]
    lines += ["%s\t%s" % (address, pod.hostname) for address in pod_ips]
    lines += ["%s\t%s" % (address, "\t".join(names)) for address, names in pod.host_aliases]
    path = os.path.join(directory, "hosts")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    os.chmod(path, 0o644)
    return path
