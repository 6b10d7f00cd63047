"""What an image says of itself, and the command line that it and a container make together. Pure."""

from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from .expand import expand


class ImageConfig(NamedTuple):
    """The part of an OCI image configuration that a container starts from."""

    entrypoint: Tuple[str, ...]
    cmd: Tuple[str, ...]
    env: Tuple[str, ...]
    working_dir: str
    user: str


class ReadyImage(NamedTuple):
    """An image that is here. ``config`` is None for one that does not carry its OCI configuration."""

    path: str
    image_id: str
    config: Optional[ImageConfig]


def config_from_json(data: Mapping[str, Any]) -> ImageConfig:
    """Read an OCI image configuration (its ``config`` object; every field may be absent or null)."""
    return ImageConfig(
        entrypoint=tuple(data.get("Entrypoint") or ()),
        cmd=tuple(data.get("Cmd") or ()),
        env=tuple(data.get("Env") or ()),
        working_dir=data.get("WorkingDir") or "",
        user=data.get("User") or "",
    )


def config_to_json(config: ImageConfig) -> Dict[str, Any]:
    """The reverse of ``config_from_json``."""
    return {
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Env": list(config.env),
        "WorkingDir": config.working_dir,
        "User": config.user,
    }


def command_line(
    command: Optional[Sequence[str]],
    args: Optional[Sequence[str]],
    config: ImageConfig,
    environment: Mapping[str, str],
) -> Tuple[str, ...]:
    """Return what to run, by Kubernetes' table; empty if neither the container nor the image says.

    command only: the command alone, the image's CMD is ignored; args only: ENTRYPOINT and args; neither: ENTRYPOINT
    and CMD; both: command and args. Source: kubernetes.io, "Define a Command and Arguments for a Container".
    """
    expanded_command = tuple(expand(word, environment) for word in command or ())
    expanded_args = tuple(expand(word, environment) for word in args or ())
    if expanded_command:
        return expanded_command + expanded_args
    return config.entrypoint + (expanded_args or config.cmd)
