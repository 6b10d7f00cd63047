"""Waiting for an image, with the kubelet's back-off."""

from pathlib import Path

from slurm_plugin.jobdir import JobDir
from slurm_plugin.runner import plan
from slurm_plugin.runner.backoff import Timings
from slurm_plugin.runner.book import Book, Facts
from slurm_plugin.runner.claim import Run
from slurm_plugin.runner.images import Images
from slurm_plugin.runner.loop import Loop

from .jobs import container, pod

TIMINGS = Timings(base=0.05, limit=60, reset=600)


def test_an_image_that_was_here_at_every_restart_does_not_make_the_first_failure_wait_long(tmp_path: Path) -> None:
    tree = tmp_path / "images" / "tree"
    tree.mkdir(parents=True)
    image = plan.Image(str(tree), str(tree), "IfNotPresent", insecure=False)
    (main,) = containers = (container("main", image=image),)
    what = pod(
        *containers, runtime=plan.Runtime("apptainer", "apptainer", ()), image_paths=(str(tree.parent),), images="/none"
    )
    book = Book(what, Facts(Run("42", 0), "cn1", (), ()))
    loop = Loop()
    images = Images(loop, JobDir("/none/pods/x"), what, book, TIMINGS, {})

    async def restarts() -> list[float]:
        for _ in range(10):
            assert await images.ready(main, loop.promise()) is not None
        tree.rmdir()
        waiting, seen = loop.spawn(images.ready(main, loop.promise()), "waiting"), loop.now()
        failures: list[float] = []
        while len(failures) < 3 and loop.now() - seen < 20:
            await loop.sleep(0.01)
            for event in book.snapshot(1).events:  # one, that is counted
                if event.reason == "Failed" and "ErrImagePull" in event.message and event.times > len(failures):
                    failures.append(event.last_at)
        tree.mkdir()
        assert await waiting is not None
        return failures

    first, second, third = loop.run(restarts())
    assert second - first >= 0.05
    assert third - second >= 0.1, "it doubles"
    assert second - first < 10, "2 ** 10 times as long if successes counted"
