import base64

import pytest

from slurm_plugin.contract import VolumeFile
from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.pod import Pod
from slurm_plugin.resolution.objects import (
    CONFIG_MAP,
    SECRET,
    MissingVolumeError,
    Objects,
    Reference,
    TokenRequest,
    references,
    token_requests,
)
from slurm_plugin.resolution.volumes import volume_files

OBJECTS = Objects(
    objects={
        Reference(CONFIG_MAP, "settings"): {"data": {"a": "é", "b": "2"}, "binaryData": {"c": "/w=="}},
        Reference(SECRET, "password"): {"data": {"word": base64.b64encode(b"\xff\0").decode()}},
        Reference(CONFIG_MAP, "kube-root-ca.crt"): {"data": {"ca.crt": "PEM"}},
    },
    tokens={TokenRequest("", 3607): "a.b.c"},
)


def pod(*volumes: dict, **spec) -> Pod:
    return Pod.model_validate({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"k": "v"}},
        "spec": {
            "containers": [{"name": "main", "image": "i", "resources": {"limits": {"cpu": "2"}}}],
            "volumes": [{"name": f"v{n}", **volume} for n, volume in enumerate(volumes)], **spec,
        },
    })  # fmt: skip


def files(volume: dict, **spec) -> dict[str, tuple[bytes, int]]:
    return {f.path: (f.data, f.mode) for f in volume_files(pod(volume, **spec), OBJECTS, {})["v0"]}


def test_a_configmap_is_all_its_keys_with_mode_0644():
    assert files({"configMap": {"name": "settings"}}) == {
        "a": ("é".encode(), 0o644), "b": (b"2", 0o644), "c": (b"\xff", 0o644),
    }  # fmt: skip


def test_items_choose_keys_paths_and_modes():
    items = [{"key": "a", "path": "x/y"}, {"key": "b", "path": "z", "mode": 0o400}]
    chosen = files({"configMap": {"name": "settings", "defaultMode": 0o600, "items": items}})
    assert chosen == {"x/y": ("é".encode(), 0o600), "z": (b"2", 0o400)}


def test_a_secrets_bytes_arrive():
    assert files({"secret": {"secretName": "password", "defaultMode": 0o400}}) == {"word": (b"\xff\0", 0o400)}


def test_optional_volumes_may_be_empty():
    assert files({"configMap": {"name": "no", "optional": True}}) == {}
    items = [{"key": "no", "path": "no"}, {"key": "a", "path": "a"}]
    assert list(files({"configMap": {"name": "settings", "optional": True, "items": items}})) == ["a"]


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
        ({"configMap": {"name": "settings", "items": [{"key": "no", "path": "x"}]}}, "non-existent key: no"),
        ({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "x"}}]}}, "no token"),
    ],
)
def test_what_is_missing_is_named_and_may_come(volume, message):
    with pytest.raises(MissingVolumeError, match=message) as error:
        files(volume)
    assert error.value.transient


def test_downward_files_hold_fields_and_resources():
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpus", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}, "mode": 0o440},
    ]
    assert files({"downwardAPI": {"items": items}}) == {"labels": (b'k="v"', 0o644), "cpus": (b"2", 0o440)}


API_ACCESS = {
    "projected": {
        "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ],
    }
}


def test_the_api_access_volume_holds_token_ca_and_namespace():
    assert files(API_ACCESS) == {"token": (b"a.b.c", 0o644), "ca.crt": (b"PEM", 0o644), "namespace": (b"n", 0o644)}
    assert token_requests(pod(API_ACCESS)) == {TokenRequest("", 3607)}
    assert references(pod(API_ACCESS)) == {Reference(CONFIG_MAP, "kube-root-ca.crt")}


def test_a_token_is_private_where_the_pod_names_its_user():
    assert files(API_ACCESS, securityContext={"runAsUser": 1000})["token"] == (b"a.b.c", 0o600)


def test_the_later_source_of_a_path_wins():
    sources = [
        {"configMap": {"name": "settings", "items": [{"key": key, "path": "same"}]}} for key in ("a", "b")
    ]  # fmt: skip
    result = volume_files(pod({"projected": {"sources": sources}}), OBJECTS, {})["v0"]
    assert result == (VolumeFile("same", b"2", 0o644),)


def test_volumes_without_content_are_left_out_and_unknown_projections_refused():
    assert volume_files(pod({"emptyDir": {}}, {"hostPath": {"path": "/x"}}), OBJECTS, {}) == {}
    with pytest.raises(UnsupportedFieldError, match=r"spec\.volumes\[0\]\.projected\.sources\[0\]"):
        files({"projected": {"sources": [{"clusterTrustBundle": {"path": "x"}}]}})
