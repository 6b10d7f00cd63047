"""A switchboard and what a sidecar needs to call it, with certificates of their own."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from sidecar.config import DialSettings, PairSettings, SwitchboardSettings
from sidecar.switchboard import Switchboard, switchboard
from testbed.kubernetes.pki import Authority, Pair


def authority(directory: Path, name: str) -> Authority:
    directory.mkdir(exist_ok=True, parents=True)
    made = Authority(directory, name)
    made.ensure()
    return made


def settings_of(pair: Pair) -> PairSettings:
    return PairSettings(certificate_file=str(pair.certificate), key_file=str(pair.key))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


class Lines:
    """An authority and a port. ``dial(name)``: what the sidecar of that name is told, with files of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.authority = authority(directory / "authority", "ours")
        self.agent = self.authority.server("agent", ["127.0.0.1"])
        self.port = free_port()

    def dial(
        self,
        name: str,
        directory: Path | None = None,
        *,
        by: Authority | None = None,
        believed: Authority | None = None,
    ) -> DialSettings:
        pair = (by or self.authority).client(name, name)
        mine = directory or self._directory / f"of-{name}"
        mine.mkdir(exist_ok=True)
        for path in (pair.certificate, pair.key):
            shutil.copy(path, mine)
        shutil.copy((believed or self.authority).pair.certificate, mine / "agents-ca.crt")
        return DialSettings(
            url=f"https://127.0.0.1:{self.port}",
            ca_file=str(mine / "agents-ca.crt"),
            certificate=PairSettings(
                certificate_file=str(mine / pair.certificate.name), key_file=str(mine / pair.key.name)
            ),
        )

    @property
    def settings(self) -> SwitchboardSettings:
        return SwitchboardSettings(
            listen="127.0.0.1",
            port=self.port,
            certificate=settings_of(self.agent),
            client_ca_file=str(self.authority.pair.certificate),
        )

    @asynccontextmanager
    async def board(self, names: Iterable[str]) -> AsyncIterator[Switchboard]:
        async with switchboard(self.settings, names) as board:
            yield board


async def connected(board: Switchboard, name: str) -> None:
    """Wait until the sidecar of that name has called."""
    async with asyncio.timeout(60):
        while not Path(board.socket_of(name)).exists():  # noqa: ASYNC110, ASYNC240
            await asyncio.sleep(0.01)
