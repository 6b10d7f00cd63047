"""What a container's environment contains: an ordered list of entries that the runner expands. Pure.

Rules: ``makeEnvironmentVariables`` in ``pkg/kubelet/kubelet_pods.go`` of Kubernetes 1.36. Service variables have the
lowest precedence, then ``envFrom`` in order, then ``env`` in order. ``$(NAME)`` in a value sees all that came before;
the runner replaces it, for some values are known on the compute node only.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from ..errors import UnsupportedFieldError
from ..pod import Container, EnvFromSource, EnvVar, KeySelector, Pod
from ..runner.plan import EnvEntry
from .fields import NODE_FIELDS, field_value, resource_value
from .objects import CONFIG_MAP, SECRET, MissingEnvironmentError, Objects, Service, texts_of

MASTER_NAMESPACE = "default"
MASTER_SERVICE = "kubernetes"


def environments(pod: Pod, objects: Objects, default: Mapping[str, Decimal]) -> dict[str, tuple[EnvEntry, ...]]:
    """Return every container's environment by the container's name.

    ``default``: what an unset limit is in a ``resourceFieldRef``. Raises MissingEnvironmentError, or
    UnsupportedFieldError for what can never be resolved.
    """
    services = _service_entries(pod, objects.services)
    result = {}
    for kind, containers in (("initContainers", pod.spec.init_containers), ("containers", pod.spec.containers)):
        for index, container in enumerate(containers):
            path = f"spec.{kind}[{index}]"
            entries = (
                *services,
                *_env_from(pod, container, objects, path),
                *_env(pod, container, objects, path, default),
            )
            result[container.name] = _without_nul(entries, path)
    return result


def _without_nul(entries: tuple[EnvEntry, ...], path: str) -> tuple[EnvEntry, ...]:
    for entry in entries:
        if "\0" in entry.value:
            raise UnsupportedFieldError(f"{path}.env", f"{entry.name} holds a NUL, which no environment can")
    return entries


def _env_from(pod: Pod, container: Container, objects: Objects, path: str) -> Iterator[EnvEntry]:
    for index, source in enumerate(container.env_from):
        for key, value in sorted(_all_of(pod, source, objects, f"{path}.envFrom[{index}]").items()):
            yield EnvEntry(source.prefix + key, value, expand=False, node_field="")


def _all_of(pod: Pod, source: EnvFromSource, objects: Objects, path: str) -> dict[str, str]:
    for kind, reference in ((CONFIG_MAP, source.config_map_ref), (SECRET, source.secret_ref)):
        if reference is None:
            continue
        body = objects.find(kind, reference.name)
        if body is not None:
            return texts_of(kind, body)
        if reference.optional:
            return {}
        raise MissingEnvironmentError(f'{kind.lower()} "{reference.name}" not found')
    raise UnsupportedFieldError(path, f"neither a ConfigMap nor a Secret of namespace {pod.metadata.namespace}")


def _env(
    pod: Pod, container: Container, objects: Objects, path: str, default: Mapping[str, Decimal]
) -> Iterator[EnvEntry]:
    for index, variable in enumerate(container.env):
        here = f"{path}.env[{index}].valueFrom"
        if variable.value or variable.value_from is None:
            yield EnvEntry(variable.name, variable.value or "", expand=True, node_field="")
        elif (field := variable.value_from.field_ref) and field.field_path in NODE_FIELDS:
            yield EnvEntry(variable.name, "", expand=False, node_field=field.field_path)
        elif (value := _value_from(pod, container, variable, objects, here, default)) is not None:
            yield EnvEntry(variable.name, value, expand=False, node_field="")


def _value_from(
    pod: Pod, container: Container, variable: EnvVar, objects: Objects, path: str, default: Mapping[str, Decimal]
) -> str | None:
    """Return a variable's value, None if an optional source is not there."""
    source = variable.value_from
    if source is not None and source.field_ref is not None:
        return field_value(pod, source.field_ref.field_path, f"{path}.fieldRef")
    if source is not None and source.resource_field_ref is not None:
        return resource_value(pod, source.resource_field_ref, container, f"{path}.resourceFieldRef", default)
    if source is not None and source.config_map_key_ref is not None:
        return _key_of(pod, CONFIG_MAP, source.config_map_key_ref, objects)
    if source is not None and source.secret_key_ref is not None:
        return _key_of(pod, SECRET, source.secret_key_ref, objects)
    raise UnsupportedFieldError(path, "is no source that Slurmlet knows")


def _key_of(pod: Pod, kind: str, selector: KeySelector, objects: Objects) -> str | None:
    body = objects.find(kind, selector.name)
    value = None if body is None else texts_of(kind, body).get(selector.key)
    if value is not None or selector.optional:
        return value
    if body is None:
        raise MissingEnvironmentError(f'{kind.lower()} "{selector.name}" not found')
    raise MissingEnvironmentError(
        f"couldn't find key {selector.key} in {kind} {pod.metadata.namespace}/{selector.name}"
    )


def _service_entries(pod: Pod, services: Iterable[Service]) -> tuple[EnvEntry, ...]:
    """Return the variables of services in the pod's namespace; those of ``default/kubernetes`` come to every pod."""
    values: dict[str, str] = {}
    ordered = sorted(services, key=lambda service: (service.namespace, service.name))
    masters = [s for s in ordered if (s.namespace, s.name) == (MASTER_NAMESPACE, MASTER_SERVICE)]
    own = [s for s in ordered if s.namespace == pod.metadata.namespace and pod.spec.enable_service_links]
    for service in (*masters, *own):
        if service.cluster_ip not in {"", "None"}:
            values.update(_variables_of(service))
    return tuple(EnvEntry(name, value, expand=False, node_field="") for name, value in values.items())


def _variables_of(service: Service) -> Iterator[tuple[str, str]]:
    """Yield the variables of one service (``pkg/kubelet/envvars/envvars.go``), Docker's link variables included."""
    prefix = service.name.upper().replace("-", "_")
    address = f"[{service.cluster_ip}]" if ":" in service.cluster_ip else service.cluster_ip
    yield f"{prefix}_SERVICE_HOST", service.cluster_ip
    if service.ports:
        yield f"{prefix}_SERVICE_PORT", str(service.ports[0][2])
    for name, _, port in service.ports:
        if name:
            yield f"{prefix}_SERVICE_PORT_{name.upper().replace('-', '_')}", str(port)
    for index, (_, protocol, port) in enumerate(service.ports):
        url = f"{protocol.lower()}://{address}:{port}"
        if index == 0:
            yield f"{prefix}_PORT", url
        link = f"{prefix}_PORT_{port}_{protocol.upper()}"
        yield link, url
        yield f"{link}_PROTO", protocol.lower()
        yield f"{link}_PORT", str(port)
        yield f"{link}_ADDR", service.cluster_ip
