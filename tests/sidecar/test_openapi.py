"""What the sidecar's own description says of it is so: requests made of the document, by schemathesis, and what they get."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from sidecar import wire
from sidecar.app import Sidecar
from sidecar.middleware import TokenFile
from sidecar.openapi import document

from ..vkubelet.fakes import FakeProvider

pytestmark = pytest.mark.slow

# Streams that only end when the client goes away.
ENDLESS = [wire.REPORTS, wire.STREAM]
EXAMPLES = 20
TOKEN = "a-token-of-the-tests"

schema = schemathesis.openapi.from_dict(document()).exclude(path=ENDLESS)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A sidecar on a free port, in a thread of its own: schemathesis waits for its answers."""
    loop = asyncio.new_event_loop()
    tokens = tmp_path_factory.mktemp("sidecar") / "tokens"
    tokens.write_text(TOKEN)
    sidecar = Sidecar(FakeProvider(clock=lambda: 1000.0), tokens=TokenFile(str(tokens)))

    async def start() -> web.AppRunner:
        runner = web.AppRunner(sidecar.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    thread = threading.Thread(target=loop.run_forever, name="sidecar")
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_tells_of(case: schemathesis.Case, url: str) -> None:
    # A pod of the right shape may be refused all the same: its document is Kubernetes' to describe.
    headers = {"Authorization": f"Bearer {TOKEN}"}
    case.call_and_validate(base_url=url, headers=headers, timeout=10, excluded_checks=[positive_data_acceptance])


def test_only_endless_answers_are_left_out() -> None:
    told = set(document()["paths"])
    assert set(ENDLESS) < told
    assert {operation.ok().path for operation in schema.get_all_operations()} == told - set(ENDLESS)
