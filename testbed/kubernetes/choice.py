"""Which Kubernetes a testbed has: the one that is there, else the one that KUBE asks for (`kind`, or nothing)."""

from collections.abc import Mapping

from testbed.errors import TestbedError
from testbed.kubernetes.control_plane import ControlPlane
from testbed.kubernetes.files import Files
from testbed.kubernetes.kind import Kind
from testbed.paths import Layout

VARIABLE = "KUBE"
KIND = "kind"


def chosen(layout: Layout, environment: Mapping[str, str]) -> ControlPlane | Kind:
    """The component; what is there goes before what is asked for, so that `down`, `status` and `env` need no KUBE."""
    if Kind(layout).is_there or (environment.get(VARIABLE) == KIND and not _is_built(layout)):
        return Kind(layout)
    return ControlPlane(layout)


def check_choice(layout: Layout, environment: Mapping[str, str]) -> None:
    """Raise TestbedError if KUBE asks for what does not exist, or for another one than is there."""
    wanted = environment.get(VARIABLE) or ""
    if wanted not in {"", KIND}:
        raise TestbedError(f"{VARIABLE} is {wanted!r}; it must be {KIND!r}, or not set for the built control plane.")
    if wanted == KIND and _is_built(layout):
        raise TestbedError(f"{VARIABLE}={KIND}, but the built control plane is there; `python -m testbed down` first.")


def _is_built(layout: Layout) -> bool:
    return Files(layout.kubernetes).etcd_data.exists()
