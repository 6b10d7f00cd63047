"""Lines between an agent and Slurm that a proxy breaks, for each way there is, and what networks do to them."""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sidecar.client import SidecarProvider
from sidecar.config import ClientSettings, PairSettings, ServerSettings
from sidecar.interlink.config import InterLinkSettings
from sidecar.interlink.provider import InterLinkProvider
from slurm_plugin.clients.command import Timeouts
from slurm_plugin.contract import Provider
from tests.sidecar.calls import Lines, authority, connected, free_port, settings_of

from . import ways
from .proxy import Proxy
from .sidecars import Sidecar
from .test_command_client import on_the_login_node
from .testbed import Testbed

FAULTS = ("reset", "freeze", "delay", "truncate", "swallow", "cut")
UNANSWERED_SECONDS = 5.0
"""How long a request that gets no answer is waited for: less than sites need, for half-open connections are many here."""
_SHORT = Timeouts(*[UNANSWERED_SECONDS] * 3)


@dataclass(frozen=True)
class Line:
    """Proxies that all of a line goes through, and a provider that depends on them."""

    proxies: tuple[Proxy, ...]
    provider: Provider


@asynccontextmanager
async def ssh(testbed: Testbed, directory: Path, root: str) -> AsyncIterator[Line]:
    """Everything goes through one SSH connection."""
    with ways.ssh_proxy(testbed).running() as proxy:
        host = ways.over_ssh(testbed, proxy, directory, connect_timeout=5, keepalive_seconds=2)
        yield Line((proxy,), ways.slurm_provider(host, None, root))


@asynccontextmanager
async def rest(testbed: Testbed, directory: Path, root: str) -> AsyncIterator[Line]:
    """Files are on a sound host; what is said to Slurm goes through slurmrestd."""
    with ways.rest_proxy(testbed).running() as proxy:
        yield Line((proxy,), ways.slurm_provider(on_the_login_node(testbed), proxy, root, timeouts=_SHORT))


@asynccontextmanager
async def rest_and_ssh(testbed: Testbed, directory: Path, root: str) -> AsyncIterator[Line]:
    """Files over SSH, Slurm by slurmrestd: two lines, and both break."""
    with ways.ssh_proxy(testbed).running() as files, ways.rest_proxy(testbed).running() as slurm:
        host = ways.over_ssh(testbed, files, directory, connect_timeout=5, keepalive_seconds=2)
        yield Line((files, slurm), ways.slurm_provider(host, slurm, root, timeouts=_SHORT))


@asynccontextmanager
async def sidecar(testbed: Testbed, directory: Path, root: str) -> AsyncIterator[Line]:
    """Everything goes through one sidecar, on a unix socket."""
    server = Sidecar(testbed, "faults", slurm={"root": root}, pods=ways.PROCESSES)
    settings = ClientSettings(url=f"unix:{directory / 's'}", token_file=str(server.tokens))
    with Proxy(str(server.socket), listen=str(directory / "s")).running() as proxy:
        server.start()
        try:
            yield Line((proxy,), SidecarProvider(settings, submit_seconds=UNANSWERED_SECONDS))
        finally:
            server.kill()


@asynccontextmanager
async def sidecar_over_tls(testbed: Testbed, directory: Path, root: str) -> AsyncIterator[Line]:
    """A sidecar on TCP, with certificates on both sides."""
    ours = authority(directory / "authority", "ours")
    believed, mine = ours.pair.certificate, settings_of(ours.client("agent", "agent"))
    pair, port = ours.server("sidecar", ["127.0.0.1"]), free_port()

    def listens(place: Path) -> ServerSettings:
        for path in (pair.certificate, pair.key, believed):
            shutil.copy(path, place)
        certificate = PairSettings(
            certificate_file=str(place / pair.certificate.name), key_file=str(place / pair.key.name)
        )
        return ServerSettings(port=port, certificate=certificate, client_ca_file=str(place / believed.name))

    server = Sidecar(testbed, "faults-tls", slurm={"root": root}, pods=ways.PROCESSES, listens=listens)
    with Proxy("127.0.0.1", port).running() as proxy:
        settings = ClientSettings(url=f"https://127.0.0.1:{proxy.port}", ca_file=str(believed), certificate=mine)
        server.start()
        try:
            yield Line((proxy,), SidecarProvider(settings, submit_seconds=UNANSWERED_SECONDS))
        finally:
            server.kill()


@asynccontextmanager
async def sidecar_that_calls(testbed: Testbed, directory: Path, root: str) -> AsyncIterator[Line]:
    """A sidecar that opens the connection itself: a WebSocket, and everything goes through it."""
    name, lines = "faults-calls", Lines(directory)
    with Proxy("127.0.0.1", lines.port).running() as proxy:

        def calls(place: Path) -> Any:
            return lines.dial(name, place).model_copy(update={"url": f"https://127.0.0.1:{proxy.port}"})

        server = Sidecar(testbed, name, slurm={"root": root}, pods=ways.PROCESSES, calls=calls)
        async with lines.board([name]) as board:
            server.start()
            try:
                await connected(board, name)
                settings = ClientSettings(name=name, token_file=str(server.tokens))
                way = board.socket_of(name)
                yield Line((proxy,), SidecarProvider(settings, socket_path=way, submit_seconds=UNANSWERED_SECONDS))
            finally:
                server.kill()


@asynccontextmanager
async def interlink(testbed: Testbed, directory: Path, root: str) -> AsyncIterator[Line]:
    """interLink's wire, to a sidecar that is a plugin."""
    server = Sidecar(testbed, "faults-interlink", serves="interlink", slurm={"root": root}, pods=ways.PROCESSES)
    settings = InterLinkSettings(
        url=f"unix://{directory / 's'}", token_file=str(server.tokens), directory=str(directory / "given"),
        poll_seconds=0.5,
    )  # fmt: skip
    with Proxy(str(server.socket), listen=str(directory / "s")).running() as proxy:
        server.start()
        try:
            yield Line((proxy,), InterLinkProvider(settings))
        finally:
            server.kill()


LINES: dict[str, Callable[[Testbed, Path, str], Any]] = {
    "ssh": ssh,
    "rest": rest,
    "rest/ssh": rest_and_ssh,
    "sidecar": sidecar,
    "sidecar/tls": sidecar_over_tls,
    "sidecar/calls": sidecar_that_calls,
    "interlink": interlink,
}


async def break_things(
    proxies: tuple[Proxy, ...], chance: random.Random, faults: Counter[str], progress: Callable[[], int]
) -> None:
    """Do something bad to one of the proxies now and then, for ever; every kind once before any comes again.

    After each round the line is left alone until there is ``progress``: a slow machine would never get on otherwise.
    """
    while True:
        before = progress()
        for fault in chance.sample(FAULTS, len(FAULTS)):
            await asyncio.sleep(chance.uniform(0.1, 1.0))
            await do(fault, chance.choice(proxies), chance)
            faults[fault] += 1
        while progress() == before:  # noqa: ASYNC110  a counter has no event
            await asyncio.sleep(0.1)


async def do(fault: str, proxy: Proxy, chance: random.Random) -> None:
    """Do one thing that networks do; after ``cut`` the line is joined again."""
    deeds: dict[str, Callable[[], None]] = {
        "reset": proxy.reset,
        "freeze": proxy.freeze,
        "delay": partial(proxy.delay, chance.uniform(0.05, 0.5)),
        "truncate": partial(proxy.truncate, chance.randrange(1, 5000)),
        "swallow": partial(proxy.swallow, chance.randrange(0, 200)),
        "cut": proxy.cut,
    }
    deeds[fault]()
    if fault == "cut":
        await asyncio.sleep(1)
        proxy.join()
