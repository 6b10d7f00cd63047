"""The few HTTPS requests the testbed itself makes; people and tests use kubectl."""

import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.kubernetes.pki import Pair
from testbed.ports import ADDRESS

_ANSWER_SECONDS = 5.0
_WATCH_SECONDS = 300
_WATCH_MARGIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Api:
    """One HTTPS server on loopback, spoken to with a client certificate, or with none."""

    port: int
    certificate_authority: Path
    client: Pair | None = None

    def is_healthy(self, path: str) -> bool:
        """Whether GET `path` answers 200 now; False too when nobody listens yet."""
        try:
            return self._send("GET", path)[0] == http.client.OK
        except OSError:
            return False

    def put(self, path: str, body: dict[str, Any]) -> int:
        """PUT `body` as JSON and return the status code; raises OSError when there is no answer within 5 s."""
        return self._send("PUT", path, json.dumps(body))[0]

    def watch(self, path: str) -> Iterator[dict[str, Any]]:
        """The watch events of a collection, what exists already first; ends when the server ends the watch (≤ 5 min).

        `path` carries a query. Raises OSError when the connection breaks and HTTPException when it is no watch.
        """
        connection = self._connect(_WATCH_SECONDS + _WATCH_MARGIN_SECONDS)
        try:
            connection.request("GET", f"{path}&watch=true&timeoutSeconds={_WATCH_SECONDS}")
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise http.client.HTTPException(f"GET {path} answered {answer.status} {answer.reason}")
            for line in answer:
                yield json.loads(line)
        finally:
            connection.close()

    def _send(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection = self._connect(_ANSWER_SECONDS)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _connect(self, timeout_seconds: float) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self.certificate_authority)
        if self.client is not None:
            context.load_cert_chain(self.client.certificate, self.client.key)
        return http.client.HTTPSConnection(ADDRESS, self.port, timeout=timeout_seconds, context=context)
