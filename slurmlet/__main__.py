"""``slurmlet vkubelet · sidecar · render · doctor · demo``: arguments and wiring only."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from sidecar.client import SidecarProvider
from sidecar.interlink.provider import InterLinkProvider
from sidecar.serving import InterLinkServing, serve
from sidecar.switchboard import Switchboard, switchboard
from slurm_plugin.config import LocalHostSettings, SlurmSettings
from slurm_plugin.contract import Provider
from slurm_plugin.errors import ConfigurationError, SlurmletError
from vkubelet.agent import VirtualNode, run
from vkubelet.credentials import load_access
from vkubelet.leadership import lead
from vkubelet.podlog import Formatter, JsonFormatter

from . import config, demo, wiring
from .doctor import examine
from .rendering import render_file


def _vkubelet(arguments: argparse.Namespace) -> int:
    configuration = config.load(arguments.config)
    _configure_logging(arguments)
    asyncio.run(_agent(configuration))
    return 0


async def _agent(configuration: config.Configuration) -> None:
    kubernetes = configuration.kubernetes
    access = await load_access(kubernetes.kubeconfig, kubernetes.context)
    parts = configuration.parts()
    sites = wiring.Sites(kubernetes=access.cluster, shared=len(parts) > 1)

    async def work() -> None:
        async with _switchboard(configuration) as board:
            nodes = []
            for part in parts:
                provider: Provider
                if part.sidecar is not None:
                    path = board.socket_of(part.sidecar.name) if board is not None and part.sidecar.name else ""
                    provider = SidecarProvider(part.sidecar, socket_path=path)
                elif configuration.interlink is not None:
                    provider = InterLinkProvider(configuration.interlink)
                else:
                    provider = sites.provider(part.site, node=part.agent.node.name, cluster=part.cluster)
                nodes.append(VirtualNode(part.agent, provider, part.site.pods, part.cluster))
            await run(nodes)

    if configuration.ha is None:
        await work()
    else:
        await lead(configuration.ha, kubernetes, work)


def _switchboard(
    configuration: config.Configuration,
) -> contextlib.AbstractAsyncContextManager[Switchboard | None]:
    """Return where sidecars call this agent, if some do."""
    if configuration.switchboard is None:
        return contextlib.nullcontext()
    sidecars = (part.sidecar for part in configuration.parts())
    names = [sidecar.name for sidecar in sidecars if sidecar is not None and sidecar.name is not None]
    return switchboard(configuration.switchboard, names)


def _sidecar(arguments: argparse.Namespace) -> int:
    configuration = config.load_sidecar(arguments.config)
    _configure_logging(arguments)
    asyncio.run(_serve(configuration))
    return 0


async def _serve(configuration: config.SidecarConfiguration) -> None:
    # Which Kubernetes cluster it is for is not known here: the node's name must tell it from others.
    interlink = configuration.interlink
    sites = wiring.Sites(kubernetes="behind a sidecar" if interlink is None else "behind interLink", shared=False)
    provider = sites.provider(configuration, node=configuration.node.name)
    face = None if interlink is None else InterLinkServing(interlink, configuration)
    serving = asyncio.ensure_future(serve(provider, configuration.serve, interlink=face, dial=configuration.dial))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _configure_logging(arguments: argparse.Namespace) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if arguments.log_format == "json" else Formatter())
    logging.basicConfig(level="WARNING", handlers=[handler])  # libraries speak of every request at lower levels
    logging.captureWarnings(capture=True)
    for package in ("slurmlet", "vkubelet", "sidecar", "slurm_plugin"):
        logging.getLogger(package).setLevel(arguments.log_level)


def _render(arguments: argparse.Namespace) -> int:
    if arguments.config is None:
        configuration = config.Configuration(slurm=SlurmSettings(host=LocalHostSettings(kind="local")))
    else:
        configuration = config.load(arguments.config)
    parts = {part.agent.node.name: part for part in configuration.parts()}
    name = arguments.node or next(iter(parts))
    if name not in parts:
        raise ConfigurationError(f"--node: no node {name!r} is configured; there are {', '.join(parts)}")
    sys.stdout.write(render_file(arguments.pod, parts[name].site, node=name))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    return asyncio.run(_examine(config.load_either(arguments.config)))


async def _examine(configuration: config.Configuration | config.SidecarConfiguration) -> int:
    failed = 0
    async for finding in examine(configuration):
        print(finding, flush=True)
        failed += not finding.fine
    return 1 if failed else 0


def _demo(arguments: argparse.Namespace) -> int:
    return demo.stop() if arguments.stop else demo.start()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="slurmlet", description="Your Slurm cluster as a Kubernetes node.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    vkubelet = commands.add_parser("vkubelet", help="register the node and run its pods as Slurm jobs")
    vkubelet.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration file")
    vkubelet.set_defaults(run=_vkubelet)

    sidecar = commands.add_parser("sidecar", help="serve a Slurm cluster to an agent elsewhere, on a login node")
    sidecar.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration file")
    sidecar.set_defaults(run=_sidecar)
    for daemon in (vkubelet, sidecar):
        daemon.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
        daemon.add_argument(
            "--log-format", default="text", choices=("text", "json"), help="one line a record, either way"
        )

    render = commands.add_parser("render", help="print the batch script and plan of a pod, without any cluster")
    render.add_argument("pod", type=Path, metavar="POD.yaml")
    render.add_argument("--config", type=Path, metavar="FILE", help="the configuration file (default: all defaults)")
    render.add_argument("--node", metavar="NAME", help="which of several nodes (default: the first)")
    render.set_defaults(run=_render)

    doctor = commands.add_parser("doctor", help="try every connection of an agent or a sidecar and say what to mend")
    doctor.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the agent's or the sidecar's configuration file"
    )
    doctor.set_defaults(run=_doctor)

    demonstration = commands.add_parser("demo", help="a real Kubernetes, a real Slurm and a pod, on this machine")
    demonstration.add_argument("--stop", action="store_true", help="stop the demo's agent")
    demonstration.set_defaults(run=_demo)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status; what the user can mend is one message on standard error."""
    arguments = _parser().parse_args(words)
    try:
        status: int = arguments.run(arguments)
    except SlurmletError as error:
        print(f"slurmlet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
