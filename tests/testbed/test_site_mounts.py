from pathlib import Path

from testbed.paths import PROJECT_ROOT, Layout
from testbed.site import mounts

LAYOUT = Layout(cache=Path("/cache"), state=Path("/state"), port_base=30000)
COMMANDS = mounts.commands(LAYOUT, Path("/cache/site/tree"), gpus=2)


def test_cached_tree_is_only_the_lower_layer() -> None:
    (overlay,) = [command for command in COMMANDS if "overlay" in command]
    assert "lowerdir=/cache/site/tree,upperdir=/state/site/upper,workdir=/state/site/work" in overlay


def test_project_images_and_what_was_built_are_read_only_at_their_places() -> None:
    for place in (str(PROJECT_ROOT), mounts.IMAGES, mounts.PYSLURM, mounts.RUNTIMES):
        bind = COMMANDS.index(("mount", "--bind", str(mounts.readable(LAYOUT)[place]), f"/state/site/root{place}"))
        remount = COMMANDS.index(("mount", "-o", "remount,bind,ro", f"/state/site/root{place}"))
        assert bind < remount


def test_share_has_the_same_path_on_both_sides() -> None:
    assert ("mount", "--bind", "/state/share", "/state/site/root/state/share") in COMMANDS


def test_each_gpu_has_a_device_that_stands_in_for_it() -> None:
    nodes = [command[3] for command in COMMANDS if command[0] == "mknod"]
    assert [node for node in nodes if "gpu" in node] == ["/state/site/root/dev/gpu0", "/state/site/root/dev/gpu1"]


def test_nothing_is_mounted_before_the_overlay_it_lies_on() -> None:
    assert COMMANDS[0][:3] == ("mount", "-t", "overlay")


def test_copy_stands_in_where_there_can_be_no_overlay() -> None:
    first, *others = mounts.commands(LAYOUT, Path("/cache/site/tree"), gpus=2, layered=False)
    assert first == ("mount", "--bind", "/state/site/copy", "/state/site/root")
    assert tuple(others) == COMMANDS[1:]
