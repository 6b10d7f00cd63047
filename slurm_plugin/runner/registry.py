"""Asks an OCI registry what an image name means now: its digest. Runs in a worker, for it blocks.

Source: the OCI distribution specification 1.1 ("Pulling manifests") and distribution's token authentication.
"""

import base64
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .logins import Login
from .reference import Reference, RegistryError, is_digest

_TIMEOUT_SECONDS = 30
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_CHALLENGE = re.compile(r'([a-zA-Z_]+)="([^"]*)"')


class DeniedError(RegistryError):
    """The registry knows who asks, and says no; or wants to know, and nobody says."""


def _request(url: str, method: str, authorization: str) -> "urllib.request.Request":
    headers = {"Accept": _ACCEPT, "User-Agent": "slurmlet"}
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 - http only where configured
    if authorization:
        # Not sent on when the registry redirects: where it points to is another's.
        request.add_unredirected_header("Authorization", authorization)
    return request


def _basic(login: Login) -> str:
    return "Basic " + base64.b64encode(("%s:%s" % (login.username, login.password)).encode("utf-8")).decode("ascii")


def _authorization(challenge: str, login: Optional[Login], *, insecure: bool) -> str:
    """Return the header that answers a registry's challenge: the login itself, or a token that it is good for."""
    scheme, _space, parameters = challenge.partition(" ")
    fields = dict(_CHALLENGE.findall(parameters))
    if scheme.lower() == "basic" and login is not None:
        return _basic(login)
    realm = fields.pop("realm", "")
    if scheme.lower() != "bearer" or not realm.startswith(("https://", "http://")):
        raise RegistryError("the registry wants credentials (%s)" % (scheme or "no challenge"))
    if login is not None and not insecure and not realm.startswith("https://"):
        raise RegistryError("the registry wants a password sent to %s, in clear" % realm)
    query = urllib.parse.urlencode({key: fields[key] for key in ("service", "scope") if key in fields})
    request = _request("%s?%s" % (realm, query), "GET", "" if login is None else _basic(login))
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
        data: Dict[str, Any] = json.loads(answer.read(1 << 20).decode("utf-8"))
    return "Bearer " + str(data.get("token") or data.get("access_token") or "")


def find_digest(reference: Reference, logins: Sequence[Login], *, insecure: bool) -> Tuple[str, Optional[Login]]:
    """Return the digest that the name has now, and the login that was needed to learn it (None: anybody may).

    Each login is tried in turn. RegistryError: there is no such image, or the registry can't be asked; DeniedError: it
    is for none of these.
    """
    tries: List[Optional[Login]] = list(logins) or [None]
    for login in tries[:-1]:
        try:
            return _find_digest(reference, login, insecure=insecure)
        except DeniedError:
            continue
    return _find_digest(reference, tries[-1], insecure=insecure)


def _find_digest(reference: Reference, login: Optional[Login], *, insecure: bool) -> Tuple[str, Optional[Login]]:
    host = "registry-1.docker.io" if reference.registry == "docker.io" else reference.registry
    url = "%s://%s/v2/%s/manifests/%s" % ("http" if insecure else "https", host, reference.path, reference.version)
    name = "%s:%s" % (reference.repository, reference.version)
    authorization = ""
    for method in ("HEAD", "HEAD", "GET"):
        try:
            request = _request(url, method, authorization)
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310
                digest = _digest_of(answer, answer.read(1 << 22) if method == "GET" else None)
                return digest, login if authorization else None
        except urllib.error.HTTPError as error:
            if error.code == 401 and not authorization:
                authorization = _answer(name, error, login, insecure=insecure)
            elif error.code == 404:
                raise RegistryError("%s: not found" % name) from error
            elif error.code in (401, 403):
                raise DeniedError("%s: pull access denied, or the repository does not exist" % name) from error
            elif method == "GET":
                raise RegistryError("%s: the registry answered %d %s" % (name, error.code, error.reason)) from error
        except _NoDigestError:
            continue  # an old registry says it only in GET's answer, or not at all
        except (OSError, ValueError) as error:
            raise RegistryError("%s: %s" % (name, getattr(error, "reason", None) or error)) from error
    raise RegistryError("%s: the registry gives no digest" % name)


def _answer(name: str, error: urllib.error.HTTPError, login: Optional[Login], *, insecure: bool) -> str:
    """Return the header for the second try. DeniedError: there will be none."""
    try:
        return _authorization(error.headers.get("WWW-Authenticate", ""), login, insecure=insecure)
    except (RegistryError, urllib.error.HTTPError) as failure:
        raise DeniedError("%s: pull access denied: %s" % (name, failure)) from failure
    except (OSError, ValueError) as failure:
        raise RegistryError("%s: no token: %s" % (name, failure)) from failure


class _NoDigestError(Exception):
    pass


def _digest_of(answer: Any, body: Optional[bytes]) -> str:
    digest = answer.headers.get("Docker-Content-Digest", "")
    if is_digest(digest):
        return str(digest)
    if body is None:
        raise _NoDigestError
    import hashlib

    return "sha256:" + hashlib.sha256(body).hexdigest()
