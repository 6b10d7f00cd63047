"""The objects that a pod's content comes from: which ones a pod refers to, and what was fetched of them. Pure.

ConfigMaps and Secrets arrive as the API server's JSON. A reference that is not optional and whose object or key is
not there makes MissingContentError, which is transient: somebody may create it.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..errors import SlurmletError
from ..pod import Pod, TokenSource, Volume

CONFIG_MAP = "ConfigMap"
SECRET = "Secret"  # noqa: S105  a kind, not a secret
CLAIM = "PersistentVolumeClaim"
PERSISTENT_VOLUME = "PersistentVolume"


class MissingContentError(SlurmletError):
    """The pod needs something that is not there (yet). ``reason`` is the kubelet's for what it keeps waiting."""

    transient: ClassVar[bool] = True


class MissingEnvironmentError(MissingContentError):
    """A container's environment is incomplete: its state is waiting, ``CreateContainerConfigError``."""


class MissingVolumeError(MissingContentError):
    """A volume can't be filled: containers wait in ``ContainerCreating``, event ``FailedMount``."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A ConfigMap, Secret or PersistentVolumeClaim in the pod's namespace, or a PersistentVolume, which is in none."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A token of the pod's service account for a volume."""

    audience: str
    expiration_seconds: int


@dataclass(frozen=True, slots=True)
class Service:
    """A Service as far as its environment variables need it: ports are (name, protocol, port)."""

    namespace: str
    name: str
    cluster_ip: str
    ports: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Objects:
    """What was fetched for one pod: an object that does not exist is None."""

    objects: Mapping[Reference, Mapping[str, Any] | None] = field(default_factory=dict)
    tokens: Mapping[TokenRequest, str] = field(default_factory=dict)
    services: tuple[Service, ...] = ()

    def find(self, kind: str, name: str) -> Mapping[str, Any] | None:
        """Return an object, None if there is no such one."""
        return self.objects.get(Reference(kind, name))


def references(pod: Pod) -> frozenset[Reference]:
    """Return the ConfigMaps and Secrets that the pod's environments and volumes come from."""
    return frozenset(ref for ref in _environment_references(pod) if ref.name) | content_references(pod)


def content_references(pod: Pod) -> frozenset[Reference]:
    """Return those that the pod's volumes come from, and which they follow while the pod lives."""
    return frozenset(ref for ref in _volume_references(pod) if ref.name)


def _environment_references(pod: Pod) -> Iterator[Reference]:
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        for source in container.env_from:
            if source.config_map_ref:
                yield Reference(CONFIG_MAP, source.config_map_ref.name)
            if source.secret_ref:
                yield Reference(SECRET, source.secret_ref.name)
        for variable in container.env:
            if variable.value_from and variable.value_from.config_map_key_ref:
                yield Reference(CONFIG_MAP, variable.value_from.config_map_key_ref.name)
            if variable.value_from and variable.value_from.secret_key_ref:
                yield Reference(SECRET, variable.value_from.secret_key_ref.name)


def _volume_references(pod: Pod) -> Iterator[Reference]:
    for volume in pod.spec.volumes:
        if volume.config_map:
            yield Reference(CONFIG_MAP, volume.config_map.name)
        if volume.secret:
            yield Reference(SECRET, volume.secret.secret_name)
        for projection in volume.projected.sources if volume.projected else ():
            if projection.config_map:
                yield Reference(CONFIG_MAP, projection.config_map.name)
            if projection.secret:
                yield Reference(SECRET, projection.secret.name)


def token_requests(pod: Pod) -> frozenset[TokenRequest]:
    """Return the service account tokens that the pod's volumes hold."""
    return frozenset(token_request(source) for volume in pod.spec.volumes for source in _token_sources(volume))


def token_request(source: TokenSource) -> TokenRequest:
    """Return what a token source asks for."""
    return TokenRequest(source.audience, source.expiration_seconds)


def _token_sources(volume: Volume) -> Iterator[TokenSource]:
    for projection in volume.projected.sources if volume.projected else ():
        if projection.service_account_token:
            yield projection.service_account_token


def content_of(kind: str, body: Mapping[str, Any]) -> dict[str, bytes]:
    """Return an object's keys and bytes: ``data`` and a ConfigMap's ``binaryData``."""
    data = body.get("data") or {}
    if kind == SECRET:
        return {key: _decoded(value) for key, value in data.items()}
    binary = {key: _decoded(value) for key, value in (body.get("binaryData") or {}).items()}
    return {key: str(value).encode() for key, value in data.items()} | binary


def texts_of(kind: str, body: Mapping[str, Any]) -> dict[str, str]:
    """Return an object's keys as environment values; bytes that are not UTF-8 survive as lone surrogates.

    A ConfigMap's ``binaryData`` is not part of an environment.
    """
    if kind == CONFIG_MAP:
        return {key: str(value) for key, value in (body.get("data") or {}).items()}
    return {key: value.decode(errors="surrogateescape") for key, value in content_of(kind, body).items()}


def _decoded(value: str | None) -> bytes:
    try:
        return base64.b64decode(value or "", validate=True)
    except binascii.Error:
        return b""  # the API server itself writes these; there is nothing better to give


def service_of(body: Mapping[str, Any]) -> Service:
    """Turn a Service object into what environments need."""
    metadata, spec = body["metadata"], body.get("spec") or {}
    ports = tuple((p.get("name") or "", p.get("protocol") or "TCP", int(p["port"])) for p in spec.get("ports") or ())
    return Service(metadata["namespace"], metadata["name"], spec.get("clusterIP") or "", ports)
