"""A container's log as an answer, whoever asked for it."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from slurm_plugin.errors import SlurmletError

log = logging.getLogger(__name__)


async def answer_log(request: web.Request, data: AsyncGenerator[bytes, None], *, media: str) -> web.StreamResponse:
    """Answer with a log as it comes. Raises what reading it raises before there was anything to send."""
    response = web.StreamResponse(headers={"Content-Type": media})
    try:
        async with aclosing(data) as pieces:
            async for piece in pieces:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(piece)
    except SlurmletError as error:
        if not response.prepared:
            raise
        log.warning("a log broke off: %s", error)
        if request.transport is not None:
            request.transport.close()  # without the last chunk the reader knows that this was not the end
        return response
    if not response.prepared:
        await response.prepare(request)
    await response.write_eof()
    return response
