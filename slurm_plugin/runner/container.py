"""One container's life: image, start, hooks and probes, its end, and again by its restart policy.

Words and order: Kubernetes 1.36 ``pkg/kubelet/kuberuntime/kuberuntime_manager.go`` and ``kuberuntime_container.go``.
"""

import functools
import os
import signal
import time
from typing import Optional, Tuple

from . import plan, termination
from .backoff import BackOff
from .expand import environment, expand
from .grace import MINIMUM_SECONDS, Grace
from .image import ImageConfig, ReadyImage, command_line
from .logs import forget_before
from .loop import Promise, Task
from .mounts import Sources, binds, with_own
from .plan import Container
from .process import StartError
from .running import RunningContainer
from .runtimes import InexpressibleError, Setting
from .shared import Shared
from .state import Running, Terminated, Waiting, next_run
from .volumes import VolumeError, remove_tree

_START_ERROR = "StartError"
_ABORTED_WORDS = "the container was ended before its command ran"
_NO_CONFIG = ImageConfig((), (), (), "", "")


class ContainerLife:
    """A container of the pod. ``started`` is done once it has started as Kubernetes means it (startup probe passed).

    ``ending`` is its last end; ``over`` says that it will not run again.
    """

    def __init__(self, shared: Shared, container: Container) -> None:
        self.container = container
        self.started = shared.loop.promise()
        self.over = shared.loop.promise()
        self.ending: Optional[Terminated] = None
        self.running: Optional[RunningContainer] = None
        self._shared = shared
        self._hook: Optional[Task] = None  # the preStop hook of this run
        self._stop = shared.loop.promise()  # it is not to run again: the pod ends, or it alone, as sidecars do
        shared.stopping.add_callback(self._stop.resolve)
        self._roused = self._new_rouse()
        self._redefined = False
        self._unhealthy = False  # a probe has this run ended
        self._replaced: Optional[Tuple[Terminated, Optional[Terminated], int]] = None

    @property
    def name(self) -> str:
        """Its name."""
        return self.container.name

    async def live(self) -> None:
        """Run it until it need not, or must not, run again."""
        back_off = BackOff(self._shared.timings)
        try:
            while not self._stopping():
                roused = self._roused
                image = await self._shared.images.ready(self.container, roused)
                if image is None or roused.done or self._stopping():
                    continue  # it is to be stopped, or to run another image
                if self._redefined:
                    back_off, self._redefined = self._new_back_off(), False
                ending = await self._once(image)
                if self._redefined:
                    continue
                if self._stopping() or (ending is not None and not self._again(ending)):
                    return
                await self._wait_back_off(back_off, ending)
        finally:
            if self._replaced is not None:
                self._set_ended(*self._replaced)
            self.over.resolve()

    def redefine(self, image: plan.Image) -> None:
        """Its image was edited: what waits goes on with the new one at once, what runs is restarted with it.

        Whatever its restart policy and back-off, as the kubelet does, but a running init container is left to its end,
        and what has ended for good stays so.
        """
        self.container = self.container._replace(image=image)
        if self.over.done or (self.running is not None and self.container.kind == plan.INIT):
            return
        self._redefined = True
        if self.running is None:
            self._roused.resolve()
            self._roused = self._new_rouse()
        else:
            grace = Grace(self._shared.loop, self._shared.plan.grace_seconds)
            words = "Container %s definition changed, will be restarted"
            if self.container.kind == plan.SIDECAR:
                words = "Init container %s definition changed"
            self._shared.loop.spawn(self.stop(grace, words % self.name), "restart of " + self.name)

    def _new_rouse(self) -> Promise:
        """Return the promise that its waiting has no sense any more: it is to be stopped, or was redefined."""
        roused = self._shared.loop.promise()
        self._stop.add_callback(roused.resolve)
        return roused

    def _new_back_off(self) -> BackOff:
        """Return a redefined container's back-off: the restart that this itself is counts as its first."""
        back_off = BackOff(self._shared.timings)
        if self.ending is not None:
            back_off.next(self._shared.loop.now())
        return back_off

    def _stopping(self) -> bool:
        return self._shared.stopping.done or self._stop.done

    def _again(self, ending: Terminated) -> bool:
        """Whether it runs again after this end: by its policy, and after a probe's failure whatever its exit code, unless never."""
        policy = self.container.restart_policy
        return policy == "Always" or (policy == "OnFailure" and (ending.exit_code != 0 or self._unhealthy))

    async def _wait_back_off(self, back_off: BackOff, ending: Optional[Terminated]) -> None:
        """Wait before the next attempt. ``ending`` is None if nothing was started (the state says why already)."""
        shared, name = self._shared, self.name
        delay = back_off.next(shared.loop.now())
        roused = self._roused
        if ending is None:
            await shared.loop.first(roused, timeout=max(delay, shared.timings.base))
            return
        if delay <= 0:
            return
        before = shared.book.get(name)
        count = before.restart_count if self._replaced is None else self._replaced[2]
        what = "restarting failed container %s in pod %s" % (name, shared.pod_words)
        shared.book.event("BackOff", "Back-off " + what, name, warning=True)
        words = "back-off %ds restarting failed container=%s pod=%s" % (delay, name, shared.pod_words)
        shared.book.set(name, state=Waiting("CrashLoopBackOff", words), last=ending, restart_count=count)
        await shared.loop.first(roused, timeout=delay)
        if self._stopping():
            shared.book.set(name, state=before.state, last=before.last, restart_count=before.restart_count)

    # One run

    async def _once(self, image: ReadyImage) -> Optional[Terminated]:
        """Run it once. None: it could not be created, its state says why."""
        shared, name, book = self._shared, self.name, self._shared.book
        last, count = next_run(book.get(name))
        try:
            message_path = self._termination_path()
            scratch = shared.scratch.directory("containers", "%s.%d" % (name, count))
            setting = self._setting(image, message_path, scratch)
            log = shared.directory.log(name, count)
            running = RunningContainer(shared, setting, log)
        except (InexpressibleError, VolumeError, OSError, ValueError) as error:
            self._not_created(error)
            return None
        forget_before(os.path.dirname(log), count - 1)
        begun = time.time()
        try:
            running.start()
        except (InexpressibleError, OSError) as error:  # OSError: no room for another process, or for its files
            remove_tree(scratch)
            self._not_created(error)
            return None
        except StartError as error:
            book.event("Failed", "Error: %s" % error, name, warning=True)
            now = time.time()
            ending = Terminated(termination.CANNOT_START, 0, _START_ERROR, str(error), begun, now)
            return self._ended(ending, last, count, scratch)
        book.event("Created", "Created container: " + name, name)
        self._say_what_is_not_mounted(setting, count)
        self.running, self._hook, self._replaced, self._unhealthy = running, None, None, False
        book.set(name, image=self.container.image.name)
        try:
            result = await self._watch(running, last, count)
        finally:
            self.running = None
        if running.refusal:
            remove_tree(scratch)
            self._not_created(VolumeError(running.refusal))
            return None
        ending = self._terminated(running, result, begun, message_path)
        if ending.reason == _START_ERROR:
            book.event("Failed", "Error: " + ending.message, name, warning=True)
        elif not running.executed and not running.aborted:  # quicker than anybody could look
            self._runs(running, last, count)
        return self._ended(ending, last, count, scratch)

    def _runs(self, running: RunningContainer, last: Optional[Terminated], count: int) -> None:
        """Note that its command executes: before that nothing of the pod's runs."""
        self._shared.book.event("Started", "Started container " + self.name, self.name)
        state = Running(running.started_at)
        self._shared.book.set(self.name, state=state, last=last, restart_count=count, started=False, ready=False)

    def _say_what_is_not_mounted(self, setting: Setting, count: int) -> None:
        """A runtime without mounts leaves volumes where they are: said once, lest somebody looks for them."""
        mounts = {mount.mount_path for mount in self.container.mounts}
        left = [bind for bind in setting.binds if bind.target in mounts and bind.target != bind.source]
        if left and count == 0 and not self._shared.runtime.ISOLATED:
            words = ", ".join("%s is at %s" % (bind.target, bind.source) for bind in left)
            message = "the %s runtime mounts nothing: %s" % (self._shared.plan.runtime.kind, words)
            self._shared.book.event("FailedMount", message, self.name, warning=True)

    def _not_created(self, error: Exception) -> None:
        self._shared.book.event("Failed", "Error: %s" % error, self.name, warning=True)
        reason = "CreateContainerConfigError" if isinstance(error, VolumeError) else "CreateContainerError"
        self._shared.book.set(self.name, state=Waiting(reason, str(error)))

    async def _watch(self, running: RunningContainer, last: Optional[Terminated], count: int) -> termination.Exit:
        """Wait for its end, with its start, hook and probes meanwhile."""

        async def care() -> None:
            if await running.enter():
                self._runs(running, last, count)
                if running.step is not None:
                    from .worlds import watch_worlds

                    self._shared.loop.spawn(watch_worlds(self._shared, running), "worlds of " + self.name)
                await self._care(running)

        task = self._shared.loop.spawn(care(), "care of " + self.name)
        try:
            return await running.finish()
        finally:
            task.cancel()

    async def _care(self, running: RunningContainer) -> None:
        """postStart, then the probes."""
        shared, container = self._shared, self.container
        if container.post_start is not None:
            from .hooks import post_start

            failure = await post_start(shared, container, running)
            if failure:
                shared.book.event("FailedPostStartHook", failure, self.name, warning=True)
                # Not from here: this task is cancelled when the container ends, and its end must go on.
                grace = Grace(shared.loop, shared.plan.grace_seconds)
                shared.loop.spawn(self.stop(grace, "FailedPostStartHook", of=running), "stop of " + self.name)
                return
        if container.startup_probe or container.liveness_probe or container.readiness_probe:
            from .probes import Probed, watch_probes

            stop = functools.partial(self.stop, of=running, unhealthy=True)
            await watch_probes(shared, Probed(container, self.mark_started, stop), running)
        else:
            self.mark_started(ready=True)

    def mark_started(self, *, ready: bool) -> None:
        """Note that it has started, and whether it is ready at once (it has no readiness probe)."""
        self._shared.book.set(self.name, started=True, ready=ready and self.container.kind != plan.INIT)
        self.started.resolve()

    def _terminated(
        self, running: RunningContainer, result: termination.Exit, begun: float, message_path: str
    ) -> Terminated:
        container = self.container
        limit = termination.message_limit(len(self._shared.plan.containers))
        text = running.termination_message(message_path, limit)
        memory = running.killed_for_memory(result)
        if running.aborted:
            return Terminated(result.code, result.signal, "Error", _ABORTED_WORDS, begun, time.time())
        if not running.executed and not memory:
            why = termination.never_started(result.code, running.errors(), entered=running.entered)
            if why:
                return Terminated(termination.CANNOT_START, 0, _START_ERROR, why, begun, time.time())
        reason = "Completed" if result.code == 0 else "Error"
        if memory:
            reason = "OOMKilled"
        policy = container.termination_message_policy
        message = termination.message(text, policy, result.code, running.log_tail(limit))
        return Terminated(result.code, result.signal, reason, message, begun, time.time())

    def _ended(self, ending: Terminated, last: Optional[Terminated], count: int, scratch: str) -> Terminated:
        remove_tree(scratch)
        self.ending = ending
        policy = self.container.restart_policy
        against_policy = self._redefined or (self._unhealthy and policy == "OnFailure" and ending.exit_code == 0)
        if against_policy and not self._stopping():
            # Not told as its end: the API server lets no container that ended come back, but by its restart policy.
            self._replaced = ending, last, count
            waiting = Waiting("ContainerCreating", "")
            self._shared.book.set(
                self.name, state=waiting, last=ending, restart_count=count + 1, started=False, ready=False
            )
        else:
            self._set_ended(ending, last, count)
        return ending

    def _set_ended(self, ending: Terminated, last: Optional[Terminated], count: int) -> None:
        self._replaced = None
        ready = self.container.kind == plan.INIT and ending.exit_code == 0
        self._shared.book.set(
            self.name, state=ending, last=last, restart_count=count, started=False, ready=ready
        )  # fmt: skip

    # What it is started with

    def _termination_path(self) -> str:
        """Return a new, empty file that the container can write its last words to."""
        path = self._shared.directory.termination(self.name)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        return path

    def _setting(self, image: ReadyImage, message_path: str, scratch: str) -> Setting:
        shared, container = self._shared, self.container
        facts = shared.book.facts
        values = environment(shared.environment_of(container), facts.pod_ips, facts.host_ips)
        config = image.config or _NO_CONFIG
        command: Tuple[str, ...] = command_line(container.command, container.args, config, values)
        if image.config is None and not container.command:
            command = ()  # the image's own run script knows
        elif not command:
            raise InexpressibleError("no command specified")
        sources = Sources(shared.plan.volumes, shared.places, os.path.join(scratch, "subpaths"))
        mounts = with_own(binds(container, sources, values), container, message_path, shared.hosts_file)
        return Setting(
            container=container,
            runtime=shared.plan.runtime,
            image=image,
            command=command,
            arguments=tuple(expand(word, values) for word in container.args or ()),
            working_dir=container.working_dir or config.working_dir,
            environment=values,
            binds=mounts,
            hostname=shared.plan.hostname,
            scratch=scratch,
            host=shared.host,
        )

    # Its end from outside

    async def stop(
        self,
        grace: Grace,
        message: str,
        turn: Optional[Promise] = None,
        *,
        alone: bool = False,
        of: Optional[RunningContainer] = None,
        unhealthy: bool = False,
    ) -> None:
        """preStop, TERM, KILL; return when nothing of it runs. ``turn``: who must be gone before it gets TERM.

        ``alone``: it is not to run again although the pod goes on. ``of``: the run that is meant, if another is none of
        the caller's business. ``unhealthy``: a probe says so. Calling it twice is harmless.
        """
        if alone:
            self._stop.resolve()
        running, container = self.running, self.container
        if running is None or (of is not None and (running is not of or running.ended)):
            return
        self._unhealthy = self._unhealthy or unhealthy
        self._shared.book.event("Killing", message, self.name)
        if not running.entered:
            await running.kill()
            return
        await grace.wait(running.settled, MINIMUM_SECONDS)
        if container.pre_stop is not None and (self._hook is not None or grace.remaining() > 0):
            await self._pre_stop_of(running, grace)
        if turn is not None:
            await grace.wait(turn)
        running.signal(signal.SIGTERM)
        if not await grace.wait(running.gone, MINIMUM_SECONDS):
            await running.kill()

    async def _pre_stop_of(self, running: RunningContainer, grace: Grace) -> None:
        """Have the hook run, once for a run of the container, and wait for it: at most for the grace period or the run's end.

        Who stops the container while it is being stopped already (a deletion after a failed probe) waits for the same.
        """
        loop = self._shared.loop
        if self._hook is None:
            self._hook = loop.spawn(self._run_pre_stop(running), "preStop of " + self.name)
        hook, either = self._hook, loop.promise()
        for promise in (hook, running.gone):
            promise.add_callback(either.resolve)
        await grace.wait(either)
        hook.cancel()

    async def _run_pre_stop(self, running: RunningContainer) -> None:
        from .hooks import pre_stop

        failure = await pre_stop(self._shared, self.container, running)
        if failure:
            self._shared.book.event("FailedPreStopHook", failure, self.name, warning=True)
