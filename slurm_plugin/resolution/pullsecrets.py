"""The logins that a pod's ``imagePullSecrets`` hold. Pure.

Admission has added those of the pod's service account. As with a kubelet, a secret that is missing or holds none is no
error: the image may be for anybody.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from typing import Any

from ..pod import Pod
from ..runner.logins import Login, pattern_of
from .objects import SECRET, Objects, Reference, content_of

_JSON = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson")
_OLD = ("kubernetes.io/dockercfg", ".dockercfg")


def pull_secrets(pod: Pod) -> frozenset[Reference]:
    """Return the pod's pull secrets."""
    return frozenset(Reference(SECRET, secret.name) for secret in pod.spec.image_pull_secrets if secret.name)


def logins(pod: Pod, objects: Objects) -> tuple[Login, ...]:
    """Return the logins of a pod in the order of its secrets."""
    found: dict[Login, None] = {}
    for secret in pod.spec.image_pull_secrets:
        body = objects.find(SECRET, secret.name)
        if body is not None:
            found |= dict.fromkeys(_logins(body))
    return tuple(found)


def _logins(body: Mapping[str, Any]) -> Iterator[Login]:
    data, kind = content_of(SECRET, body), body.get("type")
    try:
        if kind == _JSON[0] and _JSON[1] in data:
            entries = json.loads(data[_JSON[1]])["auths"]
        elif kind == _OLD[0] and _OLD[1] in data:
            entries = json.loads(data[_OLD[1]])
        else:
            return
        for key, entry in entries.items():
            yield _login(str(key), entry)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # what the API server does not check may be anything: no login, as with a kubelet


def _login(key: str, entry: Mapping[str, Any]) -> Login:
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]).strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ValueError("auth is not base64 of user:password") from error
        user, _, password = text.partition(":")
    return Login(pattern_of(key), user, password)
