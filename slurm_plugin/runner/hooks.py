"""postStart and preStop: exec, http, tcp and sleep.

Words: Kubernetes 1.36 ``pkg/kubelet/lifecycle/handlers.go`` and ``kuberuntime_container.go``.
"""

from .actions import perform
from .plan import Action, Container
from .running import RunningContainer
from .shared import Shared

_NO_LIMIT = None


async def post_start(shared: Shared, container: Container, running: RunningContainer) -> str:
    """Run the hook; return why it failed, or an empty text."""
    return await _run(shared, container, running, container.post_start)


async def pre_stop(shared: Shared, container: Container, running: RunningContainer) -> str:
    """Run the hook; return why it failed, or an empty text. The caller bounds its time."""
    return await _run(shared, container, running, container.pre_stop)


async def _run(shared: Shared, container: Container, running: RunningContainer, action: "Action | None") -> str:
    if action is None:
        return ""
    if action.kind == "sleep":
        await shared.loop.first(running.gone, timeout=float(action.seconds))
        return ""
    outcome = await perform(shared, running, action, _NO_LIMIT)
    if outcome.ok:
        return ""
    what = "Exec" if action.kind == "exec" else "Http"
    where = "(%s) for Container %r in Pod %r" % (
        " ".join(action.command) or action.path,
        container.name,
        shared.pod_words,
    )
    return "%s lifecycle hook %s failed - error: %s" % (what, where, outcome.text)
