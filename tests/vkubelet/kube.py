"""An API server in memory, as far as the reconciler can tell: pods with versions, a watch, patches by UID."""

import asyncio
import copy
import itertools
from collections.abc import AsyncGenerator, Callable
from typing import Any

from vkubelet.errors import AlreadyExistsError, KubeError, NotFoundError, ReplacedError
from vkubelet.kube import Changed, Json, Listed, Patch


class FakeKube:
    """``objects`` by path; ``writes`` are all writes as (verb, path, body); ``fail`` raises before a write.

    Reads of what is ``silent`` have no answer.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.writes: list[tuple[str, str, Json]] = []
        self.reads: list[str] = []
        self.silent: set[str] = set()
        self.fail: Callable[[str, str], KubeError | None] = lambda _verb, _path: None
        self.creations: dict[str, Callable[[Json], Json]] = {}
        self._versions = itertools.count(1)
        self._watches: list[tuple[str, asyncio.Queue[tuple[Json, bool]]]] = []

    # --- what a test does ---

    def put(self, path: str, body: Json, *, uid: str | None = None) -> Json:
        """Let an object exist, or change it."""
        stored = copy.deepcopy(body)
        metadata = stored.setdefault("metadata", {})
        metadata.setdefault("uid", uid or f"uid-{next(self._versions)}")
        metadata.setdefault("name", path.rsplit("/", 1)[1])
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[path] = stored
        self._announce(path, stored, deleted=False)
        return stored

    def remove(self, path: str) -> None:
        """Let an object be gone."""
        stored = self.objects.pop(path)
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        self._announce(path, stored, deleted=True)

    def _announce(self, path: str, body: Json, *, deleted: bool) -> None:
        for prefix, queue in self._watches:
            if _belongs(path, prefix):
                queue.put_nowait((copy.deepcopy(body), deleted))

    def statuses(self, path: str) -> list[Json]:
        """Return the statuses written to an object, in order."""
        return [body["status"] for verb, where, body in self.writes if verb == "PATCH" and where == f"{path}/status"]

    # --- what the agent does ---

    async def get(self, path: str, **_parameters: str) -> Json:
        self.reads.append(path)
        await asyncio.sleep(0)
        if path in self.silent:
            await asyncio.Event().wait()
        if path not in self.objects:
            raise NotFoundError(path)
        return copy.deepcopy(self.objects[path])

    async def get_metadata(self, path: str) -> Json:
        return {"metadata": (await self.get(path))["metadata"]}

    async def create(self, path: str, body: Json) -> Json:
        self._write("POST", path, body)
        await asyncio.sleep(0)
        if answer := self.creations.get(path):
            return answer(body)
        name = body["metadata"].get("name") or f"{body['metadata']['generateName']}{next(self._versions)}"
        if f"{path}/{name}" in self.objects:
            raise AlreadyExistsError(name)
        return copy.deepcopy(self.put(f"{path}/{name}", body))

    async def patch(self, path: str, body: Json, *, kind: Patch = Patch.STRATEGIC) -> Json:
        assert kind in Patch
        self._write("PATCH", path, body)
        await asyncio.sleep(0)
        target = path.removesuffix("/status")
        if target not in self.objects:
            raise NotFoundError(path)
        stored = copy.deepcopy(self.objects[target])
        if body.get("metadata", {}).get("uid") not in {None, stored["metadata"]["uid"]}:
            raise ReplacedError(path)
        _merge(stored, body)
        return copy.deepcopy(self.put(target, stored))

    async def delete(self, path: str, *, uid: str, grace_seconds: int) -> None:
        self._write("DELETE", path, {"uid": uid, "grace": grace_seconds})
        await asyncio.sleep(0)
        if path not in self.objects:
            raise NotFoundError(path)
        if self.objects[path]["metadata"]["uid"] != uid:
            raise ReplacedError(path)
        self.remove(path)

    def _write(self, verb: str, path: str, body: Json) -> None:
        self.writes.append((verb, path, copy.deepcopy(body)))
        if error := self.fail(verb, path):
            raise error

    async def follow(
        self, path: str, prepare: Callable[[Json], Any], **_parameters: str
    ) -> AsyncGenerator[Listed[Any] | Changed[Any], None]:
        queue: asyncio.Queue[tuple[Json, bool]] = asyncio.Queue()
        self._watches.append((path, queue))
        here = [copy.deepcopy(body) for where, body in self.objects.items() if _belongs(where, path)]
        yield Listed(tuple(prepare(body) for body in here))
        while True:
            body, deleted = await queue.get()
            yield Changed(prepare(body), deleted)


def _belongs(path: str, collection: str) -> bool:
    return path.rsplit("/", 2)[1] == collection.rsplit("/", 1)[1]


def _merge(into: Json, patch: Json) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif key == "conditions":
            merged = {c["type"]: c for c in into.get(key) or []}
            for condition in value:
                merged[condition["type"]] = merged.get(condition["type"], {}) | condition
            into[key] = [{k: v for k, v in c.items() if v is not None} for c in merged.values()]
        elif isinstance(value, list):
            into[key] = [item for item in value if item != {"$patch": "replace"}]
        else:
            into[key] = value
