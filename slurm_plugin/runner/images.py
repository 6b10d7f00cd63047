"""Waits until a container's image is here, saying so in its state and events, as the kubelet does.

Words: Kubernetes 1.36 ``pkg/kubelet/images/image_manager.go``.
"""

from typing import Any, Dict, Optional

from slurm_plugin.jobdir import JobDir

from . import plan
from .backoff import BackOff, Timings
from .book import Book
from .cache import Cache
from .image import ImageConfig, ReadyImage, config_from_json
from .loop import Loop, Promise
from .runtimes import load
from .worker import Worker

_NO_CONFIG = ImageConfig((), (), (), "", "")
_PROGRESS_SECONDS = 30.0


class Images:
    """The images of one pod. One back-off per image name, as long as it can't be had."""

    def __init__(
        self, loop: Loop, directory: JobDir, pod: plan.Plan, book: Book, timings: Timings, host: Dict[str, str]
    ) -> None:
        self._needed: bool = load(pod.runtime.kind).NEEDS_IMAGE
        self._loop = loop
        self._pod = pod
        self._book = book
        self._timings = timings
        self._host = host
        self._directory = directory
        self._back_offs: Dict[str, BackOff] = {}

    async def ready(self, container: plan.Container, stop: Promise) -> Optional[ReadyImage]:
        """Return the image, trying for ever; None once ``stop`` is done."""
        if not self._needed:
            return ReadyImage("", "", _NO_CONFIG)
        name = container.image.name
        while not stop.done:
            answer = await self._fetch(container, stop)
            if answer is None:
                return None
            if "ready" in answer:
                self._back_offs.pop(name, None)
                return self._arrived(container, answer["ready"])
            if name not in self._back_offs:
                self._back_offs[name] = BackOff(self._timings)
                self._back_offs[name].next(self._loop.now())  # unlike a restart's, the first repetition waits
            await self._failed(container, answer, self._back_offs[name], stop)
        return None

    async def _fetch(self, container: plan.Container, stop: Promise) -> Optional[Dict[str, Any]]:
        """Run one attempt; None if it was stopped."""
        from .pull import Paths, Puller, elapsed, fetch

        begun = self._loop.now()
        name = container.image.name

        def on_message(message: Dict[str, Any]) -> None:
            if "pulling" in message:
                self._book.event("Pulling", 'Pulling image "%s"' % name, container.name)

        paths = Paths(self._pod.image_paths, (self._directory.root, self._pod.images))
        puller = Puller(self._pod.runtime, Cache(self._pod.images), self._host, self._directory.logins, paths)
        try:
            worker = Worker(self._loop, fetch(container.image, puller), on_message)
        except OSError as error:
            return {"failed": "ErrImagePull", "message": "the pull can't be started: %s" % error}
        while not worker.result.done:
            done = await self._loop.first(stop, worker.result, timeout=_PROGRESS_SECONDS)
            if stop.done:
                worker.stop()
                return None
            if done is None:
                words = 'Still pulling image "%s" after %d seconds' % (name, self._loop.now() - begun)
                self._book.event("Pulling", words, container.name)
        answer = worker.result.result()
        if answer is None or "pulling" in answer:
            return {"failed": "ErrImagePull", "message": "the pull ended without an answer; see job.log"}
        if answer.get("ready", {}).get("pulled"):
            took = elapsed(begun)
            words = 'Successfully pulled image "%s" in %s (%s including waiting). Image size: %d bytes.'
            self._book.event("Pulled", words % (name, took, took, answer["ready"]["size"]), container.name)
        elif "ready" in answer:
            words = 'Container image "%s" already present on machine' % name
            self._book.event("Pulled", words, container.name)
        result: Dict[str, Any] = answer
        return result

    def _arrived(self, container: plan.Container, ready: Dict[str, Any]) -> ReadyImage:
        config = None if ready["config"] is None else config_from_json(ready["config"])
        self._book.set(container.name, image_id=ready["image_id"])
        return ReadyImage(ready["path"], ready["image_id"], config)

    async def _failed(
        self, container: plan.Container, answer: Dict[str, Any], back_off: BackOff, stop: Promise
    ) -> None:
        """Say what failed; wait for the next attempt."""
        reason, message, name = answer["failed"], answer["message"], container.image.name
        if reason == "ErrImagePull":
            message = 'failed to pull image "%s": %s' % (name, message)
            self._book.event("Failed", message[0].upper() + message[1:], container.name, warning=True)
        elif reason == "InvalidImageName":
            self._book.event("InspectFailed", message, container.name, warning=True)
        else:
            self._book.event(reason, message, container.name, warning=True)
        self._book.event("Failed", "Error: " + reason, container.name, warning=True)
        self._book.wait(container.name, reason, message)
        delay = back_off.next(self._loop.now())
        if reason == "ErrImagePull":
            # ErrImagePull shows for a moment, then why nothing happens.
            await self._loop.first(stop, timeout=min(1.0, delay / 2))
            words = 'Back-off pulling image "%s"' % name
            self._book.event("BackOff", words, container.name)
            self._book.event("Failed", "Error: ImagePullBackOff", container.name, warning=True)
            self._book.wait(container.name, "ImagePullBackOff", "%s: ErrImagePull: %s" % (words, message))
        await self._loop.first(stop, timeout=delay)
