"""portForward: each connection of the client's is a pair of streams, data and error, and one TCP connection in the pod.

Source: ``k8s.io/kubelet/pkg/cri/streaming/portforward`` of Kubernetes 1.36.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from slurm_plugin.contract import PodConnection
from slurm_plugin.errors import SlurmletError

from .channels import Incoming, Outgoing, pour
from .failures import unexpected_told
from .together import together

log = logging.getLogger(__name__)

Connect = Callable[[int], AbstractAsyncContextManager[PodConnection]]


class DataStream(Incoming, Outgoing, Protocol):
    """Bytes both ways."""


async def forward(connect: Connect, port: int, data: DataStream, error: Outgoing, *, what: str) -> None:
    """Carry one connection; what prevents it is said on the error stream. ConnectionError once the client is gone."""
    try:
        with unexpected_told(f"{what}: port {port}"):
            async with connect(port) as connection:
                await _both_ways(connection, data, error)
    except SlurmletError as failure:
        log.info("%s: port %d: %s", what, port, failure)
        await error.write(f"error forwarding port {port} to {what}: {failure}".encode())
    await error.close()
    await data.close()


async def _both_ways(connection: PodConnection, data: DataStream, error: Outgoing) -> None:
    """Carry until the server has said all and the client too, or one of them is gone.

    A server that listens no more may still have something to say.
    """
    sending = pour(data, connection.write, connection.close_write, closed="the server takes no more")
    await together(_receive(connection, data, error), sending, name="forwarded connection")


async def _receive(connection: PodConnection, data: Outgoing, error: Outgoing) -> None:
    while received := await connection.read():
        await data.write(received)
    # kubectl waits for both before it ends its own half.
    await data.close()
    await error.close()
