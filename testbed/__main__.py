"""`python -m testbed up|down|status|env`: the testbed's command line.

    python -m testbed up [--only kubernetes|site|registry|metrics-server]
    eval "$(python -m testbed env)"
    kubectl get nodes; squeue
    python -m testbed down

`up` may be called at any time: it starts what does not run. `down` stops what was started here and leaves only the cache.
SLURM=22.05|24.11|26.05 chooses the site's Slurm, CGROUPS=1 has the kernel keep its jobs to their resources, KUBE=kind chooses a kind cluster,
SLURMLET_TESTBED the state directory, SLURMLET_TESTBED_PORT_BASE the ports.
"""

import argparse
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed import processes
from testbed.component import Component
from testbed.errors import TestbedError
from testbed.kubernetes import metrics_server
from testbed.kubernetes.choice import check_choice, chosen
from testbed.locking import locked
from testbed.paths import Layout
from testbed.progress import say
from testbed.registry import Registry
from testbed.site import DEFAULT_VERSION, Site

_KUBERNETES, _SITE, _REGISTRY = "kubernetes", "site", "registry"
_ON_DEMAND = (metrics_server.NAME,)


def main(words: Sequence[str] = sys.argv[1:]) -> int:
    """Run one command; returns its exit status: 0, or 1 when something failed or, for `status`, does not run."""
    parser = argparse.ArgumentParser(prog="python -m testbed", description=_first_line(__doc__))
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up_parser = commands.add_parser("up", help="start what does not run, and wait until it serves")
    up_parser.add_argument("--only", choices=(_KUBERNETES, _SITE, _REGISTRY, *_ON_DEMAND), help="this component alone")
    commands.add_parser("down", help="stop what was started here and remove its state")
    commands.add_parser("status", help="say what runs")
    commands.add_parser("env", help="print what `eval` sets in a shell to use it")
    arguments = parser.parse_args(words)
    try:
        _require_root_on_linux()
        layout = Layout.from_environment()
        if arguments.command == "up":
            return up(layout, arguments.only)
        return {"down": down, "status": status, "env": env}[arguments.command](layout)
    except TestbedError as error:
        say(f"testbed: {error}")
        return 1
    except KeyboardInterrupt:
        say("testbed: interrupted; repeat the command to go on from here.")
        return 130


def components(layout: Layout, environment: Mapping[str, str] = os.environ) -> dict[str, Component]:
    """The components by name, in the order they are started."""
    constrained = bool(environment.get("CGROUPS"))
    return {
        _KUBERNETES: chosen(layout, environment),
        _SITE: Site(layout, environment.get("SLURM") or DEFAULT_VERSION, constrained=constrained),
        _REGISTRY: Registry(layout),
        metrics_server.NAME: metrics_server.MetricsServer(layout),
    }


def up(layout: Layout, only: str | None) -> int:
    """Start all components but those on demand, or `only` one; Kubernetes comes up beside the site, whose namespace the registry shares."""
    parts = components(layout).items()
    chosen = {name: part for name, part in parts if only == name or (only is None and name not in _ON_DEMAND)}
    with locked(layout.lock):
        check_choice(layout, os.environ)
        layout.share.mkdir(parents=True, exist_ok=True)
        layout.share.chmod(0o1777)
        _in_parallel(
            [
                [part for name, part in chosen.items() if name == _KUBERNETES],
                [part for name, part in chosen.items() if name != _KUBERNETES],
            ]
        )
    for name, part in chosen.items():
        running = sum(text.startswith("running") for _, text in part.status())
        say(f"  {name}: {running} processes running; logs in {layout.state / 'log'}")
    say(f'The testbed is up. To use it from this shell: eval "$({sys.executable} -m testbed env)"')
    return 0


def down(layout: Layout) -> int:
    """Stop all components, the last started first, and remove the state directory."""
    with locked(layout.lock):
        for part in reversed(components(layout).values()):
            part.stop()
        left = [name for name in processes.names(layout) if processes.alive(layout, name)]
        if left:
            raise TestbedError(f"{', '.join(left)} still run, so {layout.state} is kept; end them and repeat `down`.")
        _remove(layout)
    say("The testbed is down.")
    return 0


def status(layout: Layout) -> int:
    """Print one line per part; 0 when all run, 1 otherwise."""
    all_run = True
    for name, part in components(layout).items():
        if states := part.status():
            print(name)
        for title, text in states:
            all_run = all_run and text.startswith("running")
            print(f"  {title:<26}{text}")
    return 0 if all_run else 1


def env(layout: Layout) -> int:
    """Print `export NAME=VALUE` lines for a POSIX shell."""
    variables: dict[str, str] = {}
    for part in components(layout).values():
        variables |= part.environment()
    for name, value in sorted(variables.items()):
        print(f"export {name}={shlex.quote(value)}")
    print(f'export PATH={shlex.quote(str(layout.bin))}"${{PATH:+:$PATH}}"')
    return 0


def _in_parallel(chains: Sequence[Sequence[Component]]) -> None:
    """Ensure each chain's components in order, the chains beside each other; raises the first chain's error, if any."""

    def ensure_all(chain: Sequence[Component]) -> None:
        for part in chain:
            part.ensure()

    with ThreadPoolExecutor(max_workers=len(chains), thread_name_prefix="up") as pool:
        for result in [pool.submit(ensure_all, chain) for chain in chains]:
            result.result()


def _remove(layout: Layout) -> None:
    """Remove the state directory, unless something is mounted in it: its files would be someone else's."""
    mountinfo = Path("/proc/self/mountinfo").read_text()
    mounted = [point for line in mountinfo.splitlines() if (point := line.split()[4]).startswith(f"{layout.state}/")]
    if mounted:
        raise TestbedError(
            f"{', '.join(mounted)} is still mounted, so {layout.state} is kept; unmount it and repeat `down`."
        )
    if layout.state.exists():
        shutil.rmtree(layout.state)


def _require_root_on_linux() -> None:
    if sys.platform != "linux" or os.geteuid() != 0:
        raise TestbedError(
            "it mounts file systems and starts jobs as other users, so it needs Linux and root (try sudo)."
        )


def _first_line(text: str | None) -> str:
    return (text or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
