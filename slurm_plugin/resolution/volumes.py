"""What the files of a pod's ConfigMap, Secret, projected and downwardAPI volumes are. Pure.

Rules: ``pkg/volume/{configmap,secret,projected,downwardapi}`` of Kubernetes 1.36. Modes: an item's, else the volume's
``defaultMode``, else 0644; a service account token is 0600 where the pod sets ``runAsUser`` or ``fsGroup``. How the
files are put in place, and swapped at once, is the provider's.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal

from ..contract import VolumeFile
from ..errors import UnsupportedFieldError
from ..pod import DownwardFile, KeyToPath, Pod, ProjectedSource, Volume
from .fields import field_value, resource_value
from .objects import CONFIG_MAP, SECRET, MissingVolumeError, Objects, content_of, token_request

DEFAULT_MODE = 0o644
_TOKEN_MODE = 0o600


def volume_files(pod: Pod, objects: Objects, default: Mapping[str, Decimal]) -> dict[str, tuple[VolumeFile, ...]]:
    """Return the files of every volume that has its content from the API server, by the volume's name.

    ``default``: what an unset limit is in a ``resourceFieldRef``. Raises MissingVolumeError, or UnsupportedFieldError
    for what can never be resolved.
    """
    result = {}
    for index, volume in enumerate(pod.spec.volumes):
        files = files_of(pod, index, objects, default)
        if files is not None:
            result[volume.name] = files
    return result


def files_of(pod: Pod, index: int, objects: Objects, default: Mapping[str, Decimal]) -> tuple[VolumeFile, ...] | None:
    """Return the files of one volume, None if its content is not from the API server. Raises as ``volume_files``."""
    files = _files(pod, pod.spec.volumes[index], objects, f"spec.volumes[{index}]", default)
    return None if files is None else tuple({file.path: file for file in files}.values())  # the last of a path counts


def _files(
    pod: Pod, volume: Volume, objects: Objects, path: str, default: Mapping[str, Decimal]
) -> list[VolumeFile] | None:
    if (config_map := volume.config_map) is not None:
        mode = _mode(config_map.default_mode)
        found = _object(objects, CONFIG_MAP, config_map.name, config_map.items, optional=config_map.optional)
        return _chosen(found, config_map.items, mode, f"configmap {config_map.name}", config_map.optional)
    if (secret := volume.secret) is not None:
        mode = _mode(secret.default_mode)
        found = _object(objects, SECRET, secret.secret_name, secret.items, optional=secret.optional)
        return _chosen(found, secret.items, mode, f"secret {secret.secret_name}", secret.optional)
    if (downward := volume.downward_api) is not None:
        mode = _mode(downward.default_mode)
        return [_downward(pod, item, mode, f"{path}.downwardAPI", default) for item in downward.items]
    if volume.projected is not None:
        return list(_projected(pod, volume.projected, objects, f"{path}.projected", default))
    return None


def _mode(mode: int | None) -> int:
    return DEFAULT_MODE if mode is None else mode


def _object(
    objects: Objects, kind: str, name: str, items: tuple[KeyToPath, ...], *, optional: bool
) -> dict[str, bytes]:
    body = objects.find(kind, name)
    if body is not None:
        return content_of(kind, body)
    if optional:
        return {}
    wanted = f" (needed for {', '.join(item.path for item in items)})" if items else ""
    raise MissingVolumeError(f'{kind.lower()} "{name}" not found{wanted}')


def _chosen(
    content: Mapping[str, bytes], items: tuple[KeyToPath, ...], mode: int, what: str, optional: bool
) -> list[VolumeFile]:
    """Return all keys as files, or those that ``items`` choose under the paths that they give."""
    if not items:
        return [VolumeFile(key, content[key], mode) for key in sorted(content)]
    result = []
    for item in items:
        if item.key in content:
            result.append(VolumeFile(item.path, content[item.key], mode if item.mode is None else item.mode))
        elif not optional:
            raise MissingVolumeError(f"{what} references non-existent key: {item.key}")
    return result


def _downward(pod: Pod, item: DownwardFile, mode: int, path: str, default: Mapping[str, Decimal]) -> VolumeFile:
    if item.field_ref is not None:
        value = field_value(pod, item.field_ref.field_path, f"{path}.items[{item.path}].fieldRef")
    elif item.resource_field_ref is not None:
        where = f"{path}.items[{item.path}].resourceFieldRef"
        value = resource_value(pod, item.resource_field_ref, None, where, default)
    else:
        raise UnsupportedFieldError(f"{path}.items[{item.path}]", "neither fieldRef nor resourceFieldRef")
    return VolumeFile(item.path, value.encode(), mode if item.mode is None else item.mode)


def _projected(
    pod: Pod, source: ProjectedSource, objects: Objects, path: str, default: Mapping[str, Decimal]
) -> Iterator[VolumeFile]:
    mode = _mode(source.default_mode)
    for index, projection in enumerate(source.sources):
        if (config_map := projection.config_map) is not None:
            found = _object(objects, CONFIG_MAP, config_map.name, config_map.items, optional=config_map.optional)
            yield from _chosen(found, config_map.items, mode, f"configmap {config_map.name}", config_map.optional)
        elif (secret := projection.secret) is not None:
            found = _object(objects, SECRET, secret.name, secret.items, optional=secret.optional)
            yield from _chosen(found, secret.items, mode, f"secret {secret.name}", secret.optional)
        elif (downward := projection.downward_api) is not None:
            here = f"{path}.sources[{index}].downwardAPI"
            for item in downward.items:
                yield _downward(pod, item, mode, here, default)
        elif (token := projection.service_account_token) is not None:
            value = objects.tokens.get(token_request(token))
            if value is None:
                raise MissingVolumeError(f"no token of service account {pod.spec.service_account_name} was issued")
            yield VolumeFile(token.path, value.encode(), _TOKEN_MODE if _names_an_owner(pod) else mode)
        else:
            raise UnsupportedFieldError(f"{path}.sources[{index}]", "is no projection that Slurmlet knows")


def _names_an_owner(pod: Pod) -> bool:
    """Whether the kubelet would give a token an owner, and therefore mode 0600."""
    context = pod.spec.security_context or {}
    users = {c.security_context.run_as_user for c in pod.spec.containers if c.security_context is not None}
    return context.get("fsGroup") is not None or context.get("runAsUser") is not None or bool(users - {None})
