"""The running testbed as the tests see it: its environment, kubectl, and commands run in it."""

import functools
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.paths import STATE_VARIABLE, Layout
from testbed.ports import BASE_VARIABLE, SPAN

from .looking import Looker

PROJECT_ROOT = Path(__file__).resolve().parents[2]
TESTBED = (sys.executable, "-m", "testbed")
COMMAND_SECONDS = 60


def environment_beside(name: str, index: int) -> dict[str, str]:
    """Return the environment of another testbed than ours: a directory of its own, and the ports ``index`` spans above.

    Without cgroups, which one testbed at a time can have.
    """
    ours = Layout.from_environment()
    return {
        **os.environ,
        STATE_VARIABLE: f"{ours.state}-{name}",
        BASE_VARIABLE: str(ours.port_base + index * SPAN),
        "CGROUPS": "",
    }


@dataclass(frozen=True, slots=True)
class Testbed:
    """The running testbed, as a user's shell sees it after `eval "$(python -m testbed env)"`."""

    __test__ = False  # pytest collects classes by this name

    environment: dict[str, str]

    def run(
        self, *argv: str, stdin: str | None = None, check: bool = True, timeout_seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in that environment; fails with both its outputs unless it exits with 0 or `check` is False."""
        done = subprocess.run(
            argv,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
        )
        assert not check or done.returncode == 0, f"{argv} exited with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def inside(self, *argv: str, user: str = "") -> tuple[str, ...]:
        """Return the command that runs another one on the login node: as root, or as a user."""
        enter = ("nsenter", "-t", self.environment["SLURMLET_TESTBED_SITE_PID"], "-m", "--")
        become = ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--") if user else ()
        return *enter, *become, *argv

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """What `kubectl WORDS` as the administrator prints; fails when it fails."""
        return self.run("kubectl", *words, stdin=stdin).stdout

    @property
    def looker(self) -> Looker:
        """What looks at objects without a kubectl."""
        return _looker(self.environment["KUBECONFIG"])

    def get(self, kind: str, name: str, namespace: str = "default") -> dict[str, Any] | None:
        """The object, None if there is none."""
        if Looker.knows(kind):
            return self.looker.get(kind, name, namespace)
        text = self.kubectl("get", kind, name, f"--namespace={namespace}", "--ignore-not-found", "--output=json")
        found: dict[str, Any] | None = json.loads(text) if text.strip() else None
        return found

    def apply(self, *objects: dict[str, Any]) -> None:
        """Create or change objects."""
        self.kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


@functools.cache
def _looker(kubeconfig: str) -> Looker:
    return Looker(Path(kubeconfig))


def exported(script: str) -> dict[str, str]:
    """The variables that a POSIX shell has after `eval`uating `script`: what is tested is what users do."""
    listing = subprocess.run(
        ["sh", "-c", f"{script}\nenv -0"], capture_output=True, text=True, check=True, timeout=COMMAND_SECONDS
    )
    names = re.findall(r"^export (\w+)=", script, re.MULTILINE)
    values = dict(entry.split("=", 1) for entry in listing.stdout.split("\0") if entry)
    return {name: values[name] for name in names}


def run_testbed(*words: str, check: bool = True, quiet: bool = True) -> subprocess.CompletedProcess[str]:
    stderr = subprocess.PIPE if quiet else None
    done = subprocess.run(
        [*TESTBED, *words], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, check=False
    )
    assert not check or done.returncode == 0, (
        f"`{shlex.join(('testbed', *words))}` failed: {done.stderr or 'see above'}"
    )
    return done
