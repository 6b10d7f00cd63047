from pathlib import Path

import pytest

from testbed.site import cached


def test_made_once_and_then_found(tmp_path: Path) -> None:
    calls: list[Path] = []

    def make(directory: Path, log: Path) -> None:
        calls.append(directory)
        directory.mkdir()
        (directory / "content").write_text("here")

    target = tmp_path / "cache" / "thing"
    assert cached.once(target, make) == target
    assert cached.once(target, make) == target
    assert len(calls) == 1
    assert (target / "content").read_text() == "here"


def test_interrupted_making_is_not_trusted_and_repeated_from_nothing(tmp_path: Path) -> None:
    target = tmp_path / "thing"

    def interrupted(directory: Path, log: Path) -> None:
        directory.mkdir()
        (directory / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached.once(target, interrupted)
    assert not target.exists()
    cached.once(target, lambda directory, _: directory.mkdir())
    assert list(target.iterdir()) == []
