"""Looks at objects of the API server, many times a second: over connections that are kept, for kubectl takes 60 ms of CPU a look.

Makes and removes namespaces too: every test has one, and none is about that.
"""

import base64
import http.client
import json
import ssl
import tempfile
from collections import deque
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

SECONDS = 30.0
_COLLECTIONS = {
    "event": "/api/v1/namespaces/{namespace}/events",
    "namespace": "/api/v1/namespaces",
    "pod": "/api/v1/namespaces/{namespace}/pods",
    "node": "/api/v1/nodes",
    "serviceaccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "deployment": "/apis/apps/v1/namespaces/{namespace}/deployments",
}


class Looker:
    """Reads as the administrator of a kubeconfig that holds a client certificate."""

    def __init__(self, kubeconfig: Path) -> None:
        content = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        self._address = urlsplit(cluster["server"]).netloc
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as pair:  # ssl reads a key from a file only
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]) + b"\n")
            pair.flush()
            self._context.load_cert_chain(pair.name)
        self._idle: deque[http.client.HTTPSConnection] = deque()  # whichever thread used them last

    @staticmethod
    def knows(kind: str) -> bool:
        """Whether objects of this kind can be looked at."""
        return kind in _COLLECTIONS

    def get(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        """The object, None if there is none. Raises AssertionError for any other answer, OSError for none."""
        status, found = self._ask("GET", f"{_COLLECTIONS[kind].format(namespace=namespace)}/{name}")
        assert status in {200, 404}, found
        return found if status == 200 else None

    def items(self, kind: str, namespace: str, **fields: str) -> list[dict[str, Any]]:
        """All objects of a kind whose fields are these (``metadata__name="web"``). Raises as `get` does."""
        wanted = ",".join(f"{name.replace('__', '.')}={value}" for name, value in fields.items())
        status, found = self._ask("GET", f"{_COLLECTIONS[kind].format(namespace=namespace)}?fieldSelector={wanted}")
        assert status == 200, found
        items: list[dict[str, Any]] = found["items"]
        return items

    def make_namespace(self, name: str) -> None:
        """Create a namespace. Raises as `get` does."""
        status, found = self._ask("POST", _COLLECTIONS["namespace"], {"metadata": {"name": name}})
        assert status == 201, found

    def remove_namespace(self, name: str) -> None:
        """Begin to remove a namespace and all that is in it; none is removed already. Raises as `get` does."""
        status, found = self._ask("DELETE", f"{_COLLECTIONS['namespace']}/{name}")
        assert status in {200, 404}, found

    def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        content = None if body is None else json.dumps(body)
        while True:
            connection, kept = self._connection()
            try:
                connection.request(method, path, content, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                found: dict[str, Any] = json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                connection.close()
                if not kept:
                    raise
                continue  # the server has closed it meanwhile, or was restarted
            self._idle.append(connection)
            return answer.status, found

    def _connection(self) -> tuple[http.client.HTTPSConnection, bool]:
        """Return a connection that nobody uses, and whether it is an old one."""
        try:
            return self._idle.pop(), True
        except IndexError:
            return http.client.HTTPSConnection(self._address, timeout=SECONDS, context=self._context), False
