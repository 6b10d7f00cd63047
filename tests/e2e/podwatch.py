"""A watch of a namespace's pods: every version of each that the API server tells, kept for the tests to judge."""

import json
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Self

from .testbed import Testbed
from .waiting import wait_until

Manifest = dict[str, Any]


class PodWatch:
    """What was seen, by the pod's name, oldest first."""

    def __init__(self, testbed: Testbed, namespace: str, process: subprocess.Popen[str]) -> None:
        self._testbed = testbed
        self._namespace = namespace
        self._process = process
        self._seen: dict[str, list[Manifest]] = defaultdict(list)
        self._deleted: set[str] = set()
        self._reader = threading.Thread(target=self._read, name="pod watch", daemon=True)
        self._reader.start()

    @classmethod
    @contextmanager
    def of(cls, testbed: Testbed, namespace: str) -> Iterator[Self]:
        """Watch until the end of the block."""
        argv = f"kubectl get pods --namespace={namespace} --watch --output-watch-events --output=json".split()
        process = subprocess.Popen(argv, env=testbed.environment, stdout=subprocess.PIPE, text=True)
        with process:
            watch = cls(testbed, namespace, process)
            try:
                yield watch
            finally:
                process.terminate()
                watch._reader.join(30)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            name = event["object"]["metadata"]["name"]
            self._seen[name].append(event["object"])
            (self._deleted.add if event["type"] == "DELETED" else self._deleted.discard)(name)

    def versions(self, name: str) -> list[Manifest]:
        """Every version of a pod up to the one that the API server has now: the watch may tell it a moment later."""
        now = self._testbed.get("pod", name, self._namespace)

        def told() -> bool:
            if now is None:
                return name in self._deleted
            return any(
                version["metadata"]["resourceVersion"] == now["metadata"]["resourceVersion"]
                for version in self._seen[name]
            )

        wait_until(f"the watch to tell the last of pod {name}", told)
        return list(self._seen[name])

    def states(self, name: str, container: str = "main") -> list[Manifest]:
        """Every status of a container so far."""
        statuses = (version["status"] for version in self.versions(name))
        return [
            each
            for status in statuses
            for each in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
            if each["name"] == container
        ]


_RANK = {"Pending": 0, "Running": 1, "Succeeded": 2, "Failed": 2}


def wrongs(versions: list[Manifest]) -> list[str]:
    """Return what no pod's statuses may do from one version to the next, if these did."""
    found = []
    for before, after in pairwise(versions):
        old, new = before["status"], after["status"]
        name = after["metadata"]["name"]
        if _RANK[new["phase"]] < _RANK[old["phase"]] or (_RANK[old["phase"]] == 2 and new["phase"] != old["phase"]):
            found.append(f"{name}: {old['phase']} → {new['phase']}")
        if old.get("startTime") and new.get("startTime") != old["startTime"]:
            found.append(f"{name}: startTime {old['startTime']} → {new.get('startTime')}")
        found += [f"{name}: {what}" for what in _containers(old, new)]
        conditions = {each["type"]: each["status"] for each in new.get("conditions", ())}
        if conditions.get("Ready") == "True" and conditions.get("ContainersReady") != "True":
            found.append(f"{name}: Ready without ContainersReady")
        if new["phase"] in {"Succeeded", "Failed"} and conditions.get("Ready") == "True":
            found.append(f"{name}: Ready and {new['phase']}")
    return found


def _containers(old: Manifest, new: Manifest) -> Iterator[str]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        known = {each["name"]: each for each in old.get(kind, ())}
        for status in new.get(kind, ()):
            name, (state,) = status["name"], status["state"]
            last = known.get(name)
            if status["ready"] and state != "running" and kind == "containerStatuses":
                yield f"{name} is ready and {state}"
            if last is None:
                continue
            if status["restartCount"] < last["restartCount"]:
                yield f"{name}: restartCount {last['restartCount']} → {status['restartCount']}"
            same = status["restartCount"] == last["restartCount"]
            if same and "terminated" in last["state"] and state == "running":
                yield f"{name}: terminated → running within one run"
            # Several changes may be told as one: of an end and its back-off, the back-off, with the end beside it.
            ended = status["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff" and status["lastState"]
            if same and "running" in last["state"] and state == "waiting" and not ended:
                yield f"{name}: running → waiting within one run: {status['state']}"
