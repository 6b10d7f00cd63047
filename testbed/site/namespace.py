"""The HPC site as a place: a mount namespace with a root of its own, to be entered, written to and emptied.

Only the view of the file system is private; processes, network and users' ids are the machine's. The namespace lives as
long as a process does in it; `holder` is there for when no daemon is. Nothing is mounted where the machine could see it, so
ending the processes is all the cleaning up there is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed import processes, progress
from testbed.errors import TestbedError
from testbed.paths import PROJECT_ROOT, Layout
from testbed.site import mounts
from testbed.site.holder import READY

HOLDER = "site"
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
"""What daemons of the site get: nothing of whoever called `up`."""

_STARTING = threading.Lock()  # the site and the registry come up in parallel threads and share the namespace


class Namespace:
    """One testbed's site namespace. Cheap to make; nothing is done before a method is called."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def pid(self) -> int | None:
        """The pid to enter it by, or None when it is not up."""
        return processes.pid(self._layout, HOLDER)

    @property
    def tree(self) -> Path | None:
        """The cached root file system that this testbed's site was made from, or None when it was not made yet."""
        mark = self._layout.site / "tree"
        return Path(mark.read_text(encoding="utf-8").strip()) if mark.exists() else None

    @property
    def root(self) -> Path:
        """The site's `/` as the machine can reach it. Only for paths without absolute symbolic links (`/run`, not `/var/run`)."""
        return Path(f"/proc/{self._entered()}/root")

    def ensure(self, tree: Path, *, gpus: int) -> None:
        """Make the namespace over the cached root file system `tree`; idempotent.

        What a killed holder left running is ended first: the same overlay must never be mounted twice.

        Raises:
            TestbedError: a mount failed, or the site that is up (or half up) was made from another tree.
        """
        with _STARTING:
            self._claim(tree)
            if self.pid is not None and self._ready():
                return
            processes.stop(self._layout, HOLDER)
            self.evict()
            self._start(tree, gpus=gpus)

    def enter(self, argv: Sequence[str], *, user: str = "root") -> list[str]:
        """Return the command that runs `argv` in the site as `user`; same pid, same terminal, same environment."""
        become = (
            ("/usr/bin/setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--") if user != "root" else ()
        )
        return ["nsenter", f"--target={self._entered()}", "--mount", "--", *become, *argv]

    def run(
        self, argv: Sequence[str], *, user: str = "root", text: str = "", timeout_seconds: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the site to its end, with `text` as its input; the caller looks at its exit status.

        Raises:
            TestbedError: it took longer than `timeout_seconds`.
        """
        command = self.enter(argv, user=user)
        try:
            return subprocess.run(
                command,
                input=text,
                capture_output=True,
                text=True,
                env=ENVIRONMENT,
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise TestbedError(f"`{' '.join(argv)}` in the site: no end after {timeout_seconds:g} s.") from error

    def check(self, argv: Sequence[str], *, user: str = "root", text: str = "", timeout_seconds: float = 60) -> str:
        """Run a command of the site that has to succeed and return its output.

        Raises:
            TestbedError: it failed; its own words follow.
        """
        done = self.run(argv, user=user, text=text, timeout_seconds=timeout_seconds)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise TestbedError(f"`{' '.join(argv)}` in the site ended with {done.returncode}: {said}")
        return done.stdout

    def start(
        self, name: str, argv: Sequence[str], *, user: str = "root", environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a daemon of the site (see `processes.start`); idempotent."""
        processes.start(
            self._layout, name, self.enter(argv, user=user), env={**ENVIRONMENT, **(environment or {})}, cwd=Path("/")
        )

    def write(self, path: str, data: str | bytes, *, owner: str = "root", mode: int = 0o644) -> None:
        """Write a file of the site, whole or not at all; directories that are missing are made."""
        target = Path(f"{self.root}{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.touch(mode=0o600)
        partial.write_bytes(data.encode() if isinstance(data, str) else data)
        os.chown(partial, *self.ids(owner))
        partial.chmod(mode)
        partial.replace(target)

    def directory(self, path: str, *, owner: str = "root", mode: int = 0o755) -> None:
        """Make a directory of the site, or give the one that is there this owner and mode."""
        target = Path(f"{self.root}{path}")
        target.mkdir(parents=True, exist_ok=True)
        os.chown(target, *self.ids(owner))
        target.chmod(mode)

    def exists(self, path: str) -> bool:
        """Whether the site has this file or directory."""
        return Path(f"{self.root}{path}").exists()

    def ids(self, user: str) -> tuple[int, int]:
        """Return uid and gid of a user of the site; the machine may know other users by these numbers."""
        return parse_ids((self.root / "etc/passwd").read_text(encoding="utf-8"), user)

    def release(self) -> None:
        """End the holder and everybody left in the site, unless another component's daemon still runs there; idempotent."""
        others = [name for name in processes.names(self._layout) if name != HOLDER]
        if any(self._inside(pid) for name in others if (pid := processes.pid(self._layout, name)) is not None):
            return
        processes.stop(self._layout, HOLDER)
        self.evict()

    def evict(self) -> None:
        """Kill every process that sees the site's layers, containers in namespaces of their own included, and wait for it."""

        def none_left() -> bool:
            everybody = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
            left = [pid for pid in everybody if self._inside(pid)]
            for pid in left:
                self._kill(pid)
            return not left

        processes.wait_until("The site's last processes are gone", none_left, timeout_seconds=10)

    def _inside(self, pid: int) -> bool:
        """Whether a process has one of the site's directories among its mounts, which the machine itself never has."""
        try:
            return sees(Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="replace"), self._layout.site)
        except OSError:  # it has ended meanwhile, or is a zombie, which has no mounts
            return False

    def _kill(self, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return  # gone by itself
        try:
            if self._inside(pid):  # asked again with the descriptor in hand: now the pid cannot become another's
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)

    def _entered(self) -> int:
        pid = self.pid
        if pid is None:
            raise TestbedError("The HPC site is not up. `python -m testbed up` starts and repairs it.")
        return pid

    def _ready(self) -> bool:
        top = f"/proc/{self.pid}/root"
        return Path(f"{top}{READY}").exists() and not replaced(Path(f"{top}{PROJECT_ROOT}"), PROJECT_ROOT)

    def _claim(self, tree: Path) -> None:
        """Tie the state room to one tree: an upper layer makes no sense over another."""
        known = self.tree
        if known is None:
            self._layout.site.mkdir(parents=True, exist_ok=True)
            (self._layout.site / "tree").write_text(f"{tree}\n", encoding="utf-8")
        elif known != tree:
            raise TestbedError(
                f"The site in {self._layout.state} was made from {known.name}, and {tree.name} is asked for. "
                "`python -m testbed down` first, or set SLURM to the version that is up."
            )

    def _layered(self, tree: Path) -> bool:
        """Whether the kernel lays an overlay here (tried, and gone with the namespace); if not, have a copy of the tree."""
        attempt = ["unshare", "--mount", "--propagation=private", "--", *mounts.overlay(self._layout, tree)]
        if not subprocess.run(attempt, capture_output=True, check=False).returncode:
            return True
        copy = mounts.copy(self._layout)
        if not copy.exists():
            with progress.step("Copying the site's root file system, for want of an overlay"):
                partial = copy.with_name("copy.partial")
                partial.mkdir(exist_ok=True)
                subprocess.run(["cp", "-a", "--reflink=auto", f"{tree}/.", f"{partial}/"], check=True)
                partial.rename(copy)
        return False

    def _start(self, tree: Path, *, gpus: int) -> None:
        layout = self._layout
        for directory in (mounts.root(layout), layout.site / "upper", layout.site / "work"):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o755)  # the upper layer's mode is that of the site's /
        for inside, outside in mounts.writable(layout).items():
            if not outside.exists():
                _populate(outside, Path(f"{tree}{inside}"))
        for outside in mounts.readable(layout).values():
            outside.mkdir(parents=True, exist_ok=True)
        commands = mounts.commands(layout, tree, gpus=gpus, layered=self._layered(tree))
        plan = layout.site / "plan.json"
        plan.write_text(json.dumps({"root": str(mounts.root(layout)), "commands": commands}), encoding="utf-8")
        module = [sys.executable, "-m", "testbed.site.holder", str(plan)]
        processes.start(
            layout,
            HOLDER,
            ["unshare", "--mount", "--propagation=private", "--", *module],
            env=ENVIRONMENT,
            cwd=PROJECT_ROOT,
        )

        def ready() -> bool:
            processes.require(layout, HOLDER)
            return self._ready()

        processes.wait_until("The HPC site's namespace is ready", ready, timeout_seconds=20, log=layout.log(HOLDER))


def replaced(seen: Path, directory: Path) -> bool:
    """Whether what the site sees of a directory is one that was removed since, and made anew under its name.

    What the site does not see at all is another clone's: that one's site, which is not to be taken from it.
    """
    return seen.exists() and not seen.samefile(directory)


def parse_ids(passwd: str, user: str) -> tuple[int, int]:
    """Return uid and gid of `user` in the text of a passwd file (passwd(5)).

    Raises:
        TestbedError: there is no such user.
    """
    for line in passwd.splitlines():
        name, _, uid, gid, *_ = line.split(":")
        if name == user:
            return int(uid), int(gid)
    raise TestbedError(f"The site has no user {user!r}.")


def sees(mountinfo: str, directory: Path) -> bool:
    """Whether a mountinfo text (proc_pid_mountinfo(5)) names something below `directory`; blanks are \\040 there."""
    return f"{directory}/".replace(" ", "\\040") in mountinfo


def _populate(outside: Path, model: Path) -> None:
    """Make a directory with what the tree has in its place (people's homes), or as shared scratch space."""
    if model.is_dir() and model.name != "tmp":
        subprocess.run(["cp", "-a", f"{model}", f"{outside}"], check=True)
    else:
        outside.mkdir(parents=True)
        outside.chmod(0o1777)
