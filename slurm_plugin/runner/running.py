"""One run of one container: its process, its output, its signals and its end."""

import os
import signal
import time
from typing import List, Optional, Union

from .attaching import Attachments, Fan, Input, no_attachments
from .gate import Gate
from .join import JoinError, open_inside
from .logs import Lines, LogFile, Pump, Tail
from .process import Launch, send, start
from .proctree import Remembered, alive, session
from .ranks import RankStep
from .runtimes import Setting
from .shared import Shared
from .streams import Streams, close_ours, close_theirs, open_streams
from .swaps import Check
from .termination import LOG_BYTES, LOG_LINES, Exit, cut_short, read_message, read_status

_DRAIN_SECONDS = 1.0
_KILL_SECONDS = 2.0
_KILL_STEP_SECONDS = 20.0  # for Slurm to end a step on all its nodes and srun to hear of it
_LOOK_SECONDS = 0.01
_LOOK_SECONDS_MOST = 0.5
_ENTER_SECONDS = 0.004
_ENTER_SECONDS_MOST = 0.1
_SIGNALS_SECONDS = 0.5  # in which Slurm's signal has reached every process of the job


class RunningContainer:
    """A container that runs. ``gone`` is done when no process of it is left and its output is written.

    ``pid`` is our child: the command itself, or the container runtime's starter. ``executed`` is whether the command
    was seen to execute: before that nothing of the pod's runs, and the starter's end is not the command's. ``settled``
    is done once it is known. ``started_at`` is when that was, ``begun`` the same on the loop's clock, which nobody sets.
    ``step``: the job step that it is, if it runs on every rank; our child is srun then.
    """

    def __init__(self, shared: Shared, setting: Setting, log_path: str) -> None:
        self._shared = shared
        self.setting = setting
        self.pid = 0
        self.step = RankStep(shared, setting) if setting.container.ranks is not None else None
        self._begin()
        self.gone = shared.loop.promise()
        self.settled = shared.loop.promise()
        self.executed = not shared.runtime.ISOLATED
        self.aborted = False  # it was ended before its command ran
        self._exit = shared.loop.promise()
        self._log = LogFile(log_path, shared.plan.log_max_bytes, shared.plan.log_max_files)
        self._output = Tail()
        self._errors = Tail()
        self._pumps: List[Pump] = []
        self.attachments = no_attachments(shared.loop)
        self.exit_code = -1
        self._killed = False
        self._gate: Optional[Gate] = None
        self._check = Check(shared.loop, shared.runtime, setting.binds)
        self._device_directory = -1
        self._terminal = -1
        self._ooms = shared.ooms.so_far()
        self._main = Remembered()

    def _begin(self) -> None:
        self.started_at, self.begun = time.time(), self._shared.loop.now()

    def start(self) -> None:
        """Start it. StartError: it never ran. InexpressibleError: the runtime can't do what it asks for. OSError: not now."""
        shared, container = self._shared, self.setting.container
        try:
            launch = self._launch()
            if shared.runtime.ISOLATED:
                self._gate = Gate(shared.loop, shared.runtime.gate_directory(self.setting), self._look, self._may)
            streams = open_streams(stdin=container.stdin, terminal=container.tty)
        except BaseException:
            self._discard()
            raise
        try:
            if container.tty:
                self._terminal = os.dup(streams.theirs.stdin)
            self.pid, self._exit = start(shared.loop, launch, streams.theirs)
        except BaseException:
            self._hang_up()
            close_ours(streams)
            self._discard()
            raise
        finally:
            close_theirs(streams)
        self._read(streams)

    def _hang_up(self) -> None:
        """Leave the container's terminal, which we share with it: else it would be gone when the container closes it."""
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1

    def _launch(self) -> Launch:
        if self.step is not None:
            return self.step.launch()
        self._shared.runtime.prepare(self.setting)
        launch: Launch = self._shared.runtime.launch(self.setting)
        return launch

    @property
    def root(self) -> int:
        """The process below which the container's are: our child, or rank 0's; 0 while that is not there."""
        return self.pid if self.step is None else self.step.root()

    async def enter(self) -> bool:
        """Wait until the command executes; False if it has ended before anybody saw that."""
        loop, wait = self._shared.loop, _ENTER_SECONDS
        if self._gate is not None:
            await loop.first(self._gate.passed, self._exit)
        while not self.executed and not self._exit.done:
            if self.main_pid() not in (0, self.root):
                self._begin()
                self.executed = True
            else:
                await loop.first(self._exit, timeout=wait)
                wait = min(wait * 1.5, _ENTER_SECONDS_MOST)
        self.settled.resolve()
        return self.executed

    def _discard(self) -> None:
        self._log.close()
        if self._gate is not None:
            self._gate.close()

    @property
    def entered(self) -> bool:
        """Whether the runtime has set everything up, so that only the command itself can fail."""
        return self._gate is None or self._gate.arrived

    @property
    def refusal(self) -> str:
        """Why it was ended at its gate, before its command ran; empty if it was not."""
        return self._check.refusal

    def _look(self) -> bool:
        """The container is at its gate: see what has to be seen from there. False: not yet."""
        return (self._device_directory >= 0 or self._hold_devices()) and self._check.look(self.root)

    def _may(self) -> bool:
        if not self._check.passes():
            self._shared.loop.spawn(self.kill(), "end of " + self.setting.container.name)
        return not self.refusal

    def _hold_devices(self) -> bool:
        """Hold on to the container's own /dev, where the termination message will be. False: not yet."""
        path = self.setting.container.termination_message_path
        if os.path.dirname(path) != "/dev":
            return True
        for pid in self._shared.runtime.inner_processes(self.root) if self.root else ():
            try:
                directory = open_inside(self._shared.loop, pid, "/dev")
                self._device_directory = directory
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
                os.close(os.open(os.path.basename(path), flags, 0o666, dir_fd=directory))
            except (OSError, JoinError):
                continue  # it has ended, or it does not let itself be looked at
            return True
        return False

    def termination_message(self, path: str, limit: int) -> str:
        """Return what the container left in its termination message file; empty if nothing. To be asked once."""
        directory, name = None, path
        if self._device_directory >= 0:
            directory = self._device_directory
            name = os.path.basename(self.setting.container.termination_message_path)
        try:
            return read_message(name, limit, directory)
        finally:
            if self._device_directory >= 0:
                os.close(self._device_directory)
                self._device_directory = -1

    def is_inside(self) -> bool:
        """Return whether the container's own command runs, so that others can join it."""
        return self.executed and not self._exit.done

    @property
    def lives(self) -> bool:
        """Whether its command runs. A runtime tidies up behind one that has ended, and has not ``ended`` itself until then."""
        pid = self.main_pid()
        inside = not self._shared.runtime.ISOLATED or pid not in (0, self.root)
        return self.is_inside() and inside and alive(pid)

    @property
    def ended(self) -> bool:
        """Whether its first process has ended, though others of it, or output, may be left."""
        return self._exit.done

    def _read(self, streams: Streams) -> None:
        # An input that nobody is attached to stays open: the container waits, as in Kubernetes.
        container = self.setting.container
        fans = {name: Fan() for _descriptor, name in streams.outputs}
        entry = Input(self._shared.loop, streams.input, terminal=container.tty, once=container.stdin_once)
        self.attachments = Attachments(fans, entry)
        for descriptor, name in streams.outputs:
            readers: List[Union[Tail, Fan]] = [self._output, fans[name]]
            if name == "stderr":
                readers.append(self._errors)
            self._pumps.append(Pump(self._shared.loop, descriptor, Lines(name, self._log.write), readers))

    async def finish(self) -> Exit:
        """Wait until it has ended; leave nothing of it behind; return how it ended."""
        status = await self._exit
        self._hang_up()
        self.attachments.input.close()  # a terminal's descriptor is the pump's, which closes it from here on
        await self._clear()
        await self._drain()
        self._discard()
        self.attachments.close()
        result = await self._read_end(read_status(status))
        self.exit_code = result.code
        self.gone.resolve()
        return result

    async def _read_end(self, result: Exit) -> Exit:
        """Return how the command ended, where the runtime's own end says something else.

        Slurm's end of a job is a signal to every process of it, the runtime's starter among them: one that is still
        setting up then dies with a code of its own, and the runner's own TERM may come a moment after.
        """
        stopping = self._shared.stopping
        if not self._shared.runtime.ISOLATED:
            return result
        if not cut_short(result.code, entered=self.entered, executed=self.executed):
            return result
        if not self._killed:  # the starter may have heard of the job's end before we did
            await self._shared.loop.first(stopping, timeout=_SIGNALS_SECONDS)
        if not (self._killed or stopping.done):
            return result
        self.aborted = not self.executed
        number = signal.SIGKILL if self._killed else signal.SIGTERM
        return Exit(128 + number, number)

    async def _drain(self) -> None:
        """Read what is still in the pipes; do not wait for ever for a process that left the session and holds them."""
        loop = self._shared.loop
        deadline = loop.now() + _DRAIN_SECONDS
        for pump in self._pumps:
            if not pump.ended.done:
                await loop.first(pump.ended, timeout=max(0.0, deadline - loop.now()))
                pump.stop()

    async def _clear(self) -> None:
        """Kill what the first process left behind, as the end of a PID namespace would."""
        wait = _LOOK_SECONDS
        while True:
            left = session(self.pid) - {self.pid}
            if not left:
                return
            for pid in left:
                send(pid, signal.SIGKILL)
            await self._shared.loop.sleep(wait)
            wait = min(wait * 2, _LOOK_SECONDS_MOST)

    def main_pid(self) -> int:
        """Return the container's own first process, as the node knows it. Probes and commands ask often."""
        known = self._main.living()
        if known:
            return known
        root = self.root
        pid: int = self._shared.runtime.main_process(root) if root else 0
        if self.executed and pid not in (0, root):
            self._main.keep(pid)
        return pid

    def signal(self, number: int) -> None:
        """Signal the container's first process."""
        if self._exit.done:
            return
        if self.step is not None:
            self._shared.loop.spawn(self.step.signal(number, self._exit), "signal to ranks")
        else:
            send(self.main_pid(), number)

    async def kill(self) -> None:
        """KILL all of it; return when it is gone."""
        self._killed = True
        loop = self._shared.loop
        while not self._exit.done:
            if self.step is not None:
                self.signal(signal.SIGKILL)
            else:
                send(self._shared.runtime.init_process(self.pid), signal.SIGKILL)
            seconds = _KILL_SECONDS if self.step is None else _KILL_STEP_SECONDS
            if await loop.first(self._exit, timeout=seconds) is None:
                # Neither the namespace's end nor its own: the starter itself then, and whatever is in its session.
                for pid in session(self.pid):
                    send(pid, signal.SIGKILL)
        await self.gone

    def killed_for_memory(self, result: Exit) -> bool:
        """Return whether the kernel killed it because the job had no memory left. To be asked once."""
        return result.code == 128 + signal.SIGKILL and not self._killed and self._shared.ooms.take(self._ooms)

    def errors(self) -> str:
        """Return the last of what was printed on stderr."""
        return self._errors.text(LOG_BYTES, LOG_LINES)

    def log_tail(self, limit: int) -> str:
        """Return the last of its output, as a termination message of at most so many bytes may hold it."""
        return self._output.text(min(LOG_BYTES, limit), LOG_LINES)
