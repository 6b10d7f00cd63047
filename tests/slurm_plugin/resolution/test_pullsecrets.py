"""Logins from pull secrets."""

import base64
import json
from typing import Any

import pytest

from slurm_plugin.pod import Pod
from slurm_plugin.resolution.objects import SECRET, Objects, Reference
from slurm_plugin.resolution.pullsecrets import logins, pull_secrets
from slurm_plugin.runner.logins import Login, logins_from_json, matching, pattern_of
from slurm_plugin.runner.plan import to_json

POD = Pod.model_validate(
    {"metadata": {"name": "p"}, "spec": {"containers": [], "imagePullSecrets": [{"name": "a"}, {"name": "b"}]}}
)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(kind: str, content: Any) -> dict[str, Any]:
    text = content if isinstance(content, str) else json.dumps(content)
    return {"type": f"kubernetes.io/{kind}", "data": {f".{kind}": encoded(text)}}


def found(body: dict[str, Any] | None) -> tuple[Login, ...]:
    return logins(POD, Objects(objects={Reference(SECRET, "b"): body}))


def test_both_kinds_of_pull_secret_are_read() -> None:
    assert pull_secrets(POD) == {Reference(SECRET, "a"), Reference(SECRET, "b")}
    entry = {"https://r.example/v1/": {"auth": encoded("me:a:b")}}
    assert found(secret("dockerconfigjson", {"auths": entry})) == (Login("r.example", "me", "a:b"),)
    assert found(secret("dockercfg", {"r.example": {"username": "me", "password": "x"}})) == (
        Login("r.example", "me", "x"),
    )


@pytest.mark.parametrize(
    "body",
    [
        None,
        secret("dockerconfigjson", "no JSON"),
        secret("dockerconfigjson", []),
        secret("dockerconfigjson", {"auths": {"r": 1}}),
        secret("dockerconfigjson", {"auths": {"r": {"auth": "%"}}}),
        {"type": "Opaque", "data": {".dockerconfigjson": encoded('{"auths": {"r": {"username": "x"}}}')}},
    ],
)
def test_a_secret_that_holds_no_login_is_no_error(body: dict[str, Any] | None) -> None:
    assert found(body) == ()


def test_logins_arrive_at_the_runner() -> None:
    given = (Login("r", "ü:x", "p\n"),)
    assert logins_from_json(json.loads(json.dumps(to_json(given)))) == given


@pytest.mark.parametrize(
    ("key", "registry", "path", "matches"),
    [
        ("r.example", "r.example", "a/b", True),
        ("https://r.example/", "r.example", "a/b", True),
        ("r.example/v2/", "r.example", "a/b", True),
        ("r.example/a", "r.example", "a/b", True),
        ("r.example/b", "r.example", "a/b", False),
        ("r.example:5000", "r.example", "a", False),
        ("*.example", "r.example", "a", True),
        ("*.example", "x.r.example", "a", False),
        ("*", "r.example", "a", False),
        ("https://index.docker.io/v1/", "docker.io", "library/busybox", True),
        ("docker.io/team", "docker.io", "library/busybox", False),
        ("index.docker.io", "r.example", "a", False),
    ],
)
def test_a_login_is_for_the_images_that_its_key_names(key: str, registry: str, path: str, matches: bool) -> None:
    assert bool(matching([Login(pattern_of(key), "u", "p")], registry, path)) is matches


def test_the_more_exact_login_comes_first() -> None:
    wide, exact = Login("r.example", "u", "1"), Login("r.example/team", "u", "2")
    assert matching([wide, exact], "r.example", "team/image") == (exact, wide)
