import asyncio

import pytest

from tests.vkubelet.kube import FakeKube
from vkubelet.api.auth import Access, Authenticator, Authorizer, Identity, certificate_identity, needed_access
from vkubelet.errors import KubeError

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
ALICE = Identity("alice", ("devs",))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresources"),
    [
        ("GET", "/healthz", "get", ("healthz", "proxy")),
        ("GET", "/pods", "get", ("pods", "proxy")),
        ("GET", "/runningpods/", "get", ("pods", "proxy")),
        ("GET", "/configz", "get", ("configz", "proxy")),
        ("GET", "/metrics/resource", "get", ("metrics",)),
        ("GET", "/stats/summary", "get", ("stats",)),
        ("GET", "/logs/x", "get", ("log",)),
        ("POST", "/checkpoint/n/p/c", "create", ("checkpoint",)),
        ("GET", "/containerLogs/n/p/c", "get", ("proxy",)),
        ("POST", "/exec/n/p/c", "create", ("proxy",)),
        ("GET", "/exec/n/p/c", "create", ("proxy",)),
        ("GET", "/portForward/n/p", "create", ("proxy",)),
        ("DELETE", "/anything", "delete", ("proxy",)),
        ("GET", "/", "get", ("proxy",)),
    ],
)
def test_a_request_needs_what_a_kubelet_asks_for_and_create_for_what_runs_code(method, path, verb, subresources):
    assert needed_access(method, path) == Access(verb, subresources)


def test_a_certificate_names_its_user_and_groups():
    peer = {"subject": ((("organizationName", "system:masters"),), (("commonName", "admin"),))}
    assert certificate_identity(peer) == Identity("admin", ("system:masters", "system:authenticated"))
    assert certificate_identity({}) is None
    assert certificate_identity(None) is None


async def test_what_is_remembered_is_bounded_however_many_ask():
    kube = FakeKube()
    kube.creations[REVIEWS] = lambda body: {
        "status": {"authenticated": True, "user": {"username": body["spec"]["token"]}}
    }
    kube.creations[ACCESS_REVIEWS] = lambda _body: {"status": {"allowed": False}}
    authenticator, authorizer = Authenticator(kube), Authorizer(kube, "slurm")  # type: ignore[arg-type]
    for number in range(4200):
        identity = await authenticator.identify(f"Bearer {number}")
        assert identity is not None
        await authorizer.allows(identity, Access("get", ("metrics",)))
    assert len(authenticator._known._answers) == len(authorizer._known._answers) == 4096
    # Tokens that nobody knows push out none that is known.
    kube.creations[REVIEWS] = lambda _body: {"status": {"authenticated": False}}
    for number in range(4200, 8400):
        assert await authenticator.identify(f"Bearer {number}") is None
    assert len(authenticator._known._answers) == len(authenticator._refused._answers) == 4096


async def test_a_token_is_reviewed_once_in_two_minutes():
    kube, clock = FakeKube(), Clock()
    user = {"username": "alice", "groups": ["devs"], "extra": {"k": ["v"]}}
    kube.creations[REVIEWS] = lambda _body: {"status": {"authenticated": True, "user": user}}
    authenticator = Authenticator(kube, clock=clock)  # type: ignore[arg-type]
    for _ in range(3):
        assert await authenticator.identify("Bearer abc") == Identity("alice", ("devs",), "", (("k", ("v",)),))
    assert len(kube.writes) == 1
    clock.now = 121
    await authenticator.identify("Bearer abc")
    assert len(kube.writes) == 2


@pytest.mark.parametrize("header", [None, "", "Basic abc", "Bearer", "Bearer  "])
async def test_no_token_is_nobody_without_asking(header):
    kube = FakeKube()
    assert await Authenticator(kube).identify(header) is None  # type: ignore[arg-type]
    assert kube.writes == []


async def test_a_refused_token_is_nobody_and_asked_about_again_after_ten_seconds():
    kube, clock = FakeKube(), Clock()
    kube.creations[REVIEWS] = lambda _body: {"status": {"authenticated": False, "user": {"username": "alice"}}}
    authenticator = Authenticator(kube, clock=clock)  # type: ignore[arg-type]
    assert await authenticator.identify("bearer abc") is None
    assert await authenticator.identify("bearer abc") is None
    assert len(kube.writes) == 1
    clock.now = 11
    assert await authenticator.identify("bearer abc") is None
    assert len(kube.writes) == 2


async def test_many_who_ask_the_same_at_once_are_one_question():
    kube = FakeKube()
    kube.creations[REVIEWS] = lambda body: {"status": {"authenticated": body["spec"]["token"] == "good", "user": {"username": "alice"}}}  # fmt: skip
    kube.creations[ACCESS_REVIEWS] = lambda _body: {"status": {"allowed": False}}
    authenticator, authorizer = Authenticator(kube), Authorizer(kube, "slurm")  # type: ignore[arg-type]
    early = asyncio.create_task(authenticator.identify("Bearer bad"))
    await asyncio.sleep(0)
    early.cancel()  # who goes away takes the answer from nobody
    assert await asyncio.gather(*(authenticator.identify("Bearer bad") for _ in range(50))) == [None] * 50
    assert {who.user for who in await asyncio.gather(*(authenticator.identify("Bearer good") for _ in range(50))) if who} == {"alice"}  # fmt: skip
    access = Access("get", ("metrics",))
    assert not any(await asyncio.gather(*(authorizer.allows(ALICE, access) for _ in range(50))))
    assert [path for _, path, _ in kube.writes] == [REVIEWS, REVIEWS, ACCESS_REVIEWS]


async def test_a_question_that_failed_fails_all_who_wait_and_is_asked_again():
    kube = FakeKube()
    kube.fail = lambda _verb, _path: KubeError("away")
    authenticator = Authenticator(kube)  # type: ignore[arg-type]
    both = await asyncio.gather(*(authenticator.identify("Bearer a") for _ in range(2)), return_exceptions=True)
    assert [type(error) for error in both] == [KubeError, KubeError]
    kube.fail = lambda _verb, _path: None
    kube.creations[REVIEWS] = lambda _body: {"status": {"authenticated": True, "user": {"username": "alice"}}}
    assert await authenticator.identify("Bearer a") == Identity("alice")


async def test_yes_is_remembered_for_five_minutes_and_no_for_thirty_seconds():
    kube, clock = FakeKube(), Clock()
    answers = {"healthz": False, "proxy": True}
    kube.creations[ACCESS_REVIEWS] = lambda body: {
        "status": {"allowed": answers[body["spec"]["resourceAttributes"]["subresource"]]}
    }
    authorizer = Authorizer(kube, "slurm", clock=clock)  # type: ignore[arg-type]
    access = Access("get", ("healthz", "proxy"))
    assert await authorizer.allows(ALICE, access)
    assert await authorizer.allows(ALICE, access)
    assert len(kube.writes) == 2
    assert kube.writes[0][2]["spec"]["resourceAttributes"] == {
        "verb": "get", "version": "v1", "resource": "nodes", "subresource": "healthz", "name": "slurm",
    }  # fmt: skip
    clock.now = 31
    assert await authorizer.allows(ALICE, access)
    assert len(kube.writes) == 3
    clock.now = 301
    answers["proxy"] = False
    assert not await authorizer.allows(ALICE, access)
