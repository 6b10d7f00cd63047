"""``/run``: a command's whole output in one plain answer, as much as the kubelet takes."""

from contextlib import AbstractAsyncContextManager

from slurm_plugin.contract import ContainerProcess

from .together import together

MOST_BYTES = 16 * 1024 * 1024


class OutputTooLongError(Exception):
    """The command writes more than one answer may hold."""


async def output(process: AbstractAsyncContextManager[ContainerProcess]) -> tuple[int, bytes]:
    """Run a command; its exit code and what it wrote, on both streams. Raises what the provider raises, or too long."""
    text = bytearray()
    async with process as running:

        async def collect(*, error: bool) -> None:
            while data := await (running.read_error() if error else running.read()):
                text.extend(data)
                if len(text) > MOST_BYTES:
                    raise OutputTooLongError(f"the command writes more than {MOST_BYTES} bytes")

        await together(collect(error=False), collect(error=True), name="output of a command")
        return await running.wait(), bytes(text)
