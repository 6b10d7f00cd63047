import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

from testbed import images

IMAGE = images.Image("library/x", "1", "busybox", images.Configuration(cmd=("sh",), working_dir="/data"))


def _layout(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/tool").write_text("#!/bin/sh\n")
    (tree / "dev").mkdir()
    (tree / "dev/null").touch()
    images.write_layout(tmp_path / "oci", tree, IMAGE)
    return tmp_path / "oci"


def _blob(layout: Path, descriptor: dict[str, str]) -> bytes:
    data = (layout / "blobs/sha256" / descriptor["digest"].removeprefix("sha256:")).read_bytes()
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor["digest"]
    assert len(data) == descriptor["size"]
    return data


def test_every_digest_and_size_in_a_layout_is_true(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(_blob(layout, entry))
    configuration = json.loads(_blob(layout, manifest["config"]))
    layer = gzip.decompress(_blob(layout, manifest["layers"][0]))
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    assert len(list((layout / "blobs/sha256").iterdir())) == 3


def test_layer_holds_the_tree_without_its_devices(tmp_path: Path) -> None:
    layout = _layout(tmp_path)
    layer = max((layout / "blobs/sha256").iterdir(), key=lambda blob: blob.read_bytes()[:2] == b"\x1f\x8b")
    with tarfile.open(fileobj=io.BytesIO(layer.read_bytes())) as tar:
        assert tar.getnames() == ["bin", "bin/tool", "dev"]


def test_configuration_names_only_what_is_set() -> None:
    assert images.Configuration(cmd=("sh",), env=("A=b",)).as_json() == {"Cmd": ["sh"], "Env": ["A=b"]}


def test_images_have_the_names_manifests_use() -> None:
    assert {"library/busybox:1.36", "library/python:3.11-slim"} <= {image.reference for image in images.IMAGES}


def test_other_configuration_is_another_entry_in_the_cache() -> None:
    other = images.Image(IMAGE.repository, IMAGE.tag, IMAGE.tree, images.Configuration(cmd=("ls",)))
    assert other.directory != IMAGE.directory
