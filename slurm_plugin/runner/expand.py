"""``$(NAME)`` as Kubernetes expands it, and a container's environment made from its entries. Pure.

Source: ``k8s.io/kubernetes/third_party/forked/golang/expansion/expand.go`` (1.36).
"""

from typing import Dict, Mapping, Sequence, Tuple

from .plan import EnvEntry


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$(NAME)``; an unknown name stays as it is, and ``$$(NAME)`` is a literal ``$(NAME)``."""
    result = []
    rest = text
    while True:
        before, dollar, rest = rest.partition("$")
        result.append(before)
        if not dollar:
            return "".join(result)
        name, closed, after = rest[1:].partition(")") if rest.startswith("(") else ("", "", "")
        if rest.startswith("$"):
            result.append("$")
            rest = rest[1:]
        elif closed:
            result.append(values.get(name, "$(" + name + ")"))
            rest = after
        elif rest.startswith("("):
            result.append("$(")
            rest = rest[1:]
        else:
            result.append("$")


def environment(entries: Sequence[EnvEntry], pod_ips: Tuple[str, ...], host_ips: Tuple[str, ...]) -> Dict[str, str]:
    """Return the environment: entries in order, a later one over an earlier, node facts filled in."""
    facts = {
        "status.podIP": pod_ips[0] if pod_ips else "",
        "status.podIPs": ",".join(pod_ips),
        "status.hostIP": host_ips[0] if host_ips else "",
        "status.hostIPs": ",".join(host_ips),
    }
    result: Dict[str, str] = {}
    for entry in entries:
        value = facts[entry.node_field] if entry.node_field else entry.value
        result[entry.name] = expand(value, result) if entry.expand else value
    return result
