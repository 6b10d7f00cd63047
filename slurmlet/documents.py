"""Reading the YAML files that people write, with errors that name the file, the place and what was expected."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from slurm_plugin.errors import ConfigurationError

from .plainwords import say


class _Loader(yaml.SafeLoader):
    """YAML as it is meant: a key twice in one mapping is a mistake, and not "the last one wins"."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; a ConstructorError names the place of a key that is there twice."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_documents(path: Path) -> list[Any]:
    """Return the YAML documents of a file. Raises ConfigurationError."""
    try:
        documents = yaml.load_all(path.read_text("utf-8"), _Loader)
        return [document for document in documents if document is not None]
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not YAML: {error}") from error


def explain(path: Path, error: ValidationError, document: object) -> ConfigurationError:
    """Turn pydantic's findings in a document into one line each: file, path, what is allowed, what was there."""
    findings = error.errors(include_url=False)
    return ConfigurationError("\n".join(f"{path}: {say(finding, document)}" for finding in findings))
