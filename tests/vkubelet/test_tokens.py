"""When tokens are renewed, and what happens when that fails."""

import pytest

from slurm_plugin.job import PodUid
from slurm_plugin.pod import Pod
from slurm_plugin.resolution.objects import MissingVolumeError, TokenRequest
from vkubelet.errors import ForbiddenError, KubeError, UnavailableError
from vkubelet.kube import Json
from vkubelet.tokens import Tokens, renew_at

from .kube import FakeKube

PATH = "/api/v1/namespaces/default/serviceaccounts/builder/token"
REQUEST = TokenRequest("vault", 600)
POD = Pod.model_validate(
    {"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [], "serviceAccountName": "builder"}}
)


class Issuer:
    """An API server that issues numbered tokens of 600 s, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.asked: list[Json] = []
        self.error: KubeError | None = None
        self.kube = FakeKube()
        self.kube.creations[PATH] = self._issue
        self.kube.fail = lambda _verb, _path: self.error
        self.tokens = Tokens(self.kube, clock=lambda: self.now, jitter=lambda: 0.0)  # type: ignore[arg-type]

    def _issue(self, body: Json) -> Json:
        self.asked.append(body["spec"])
        expiry = (
            f"1970-01-01T{int(self.now + 600) // 3600:02}:{int(self.now + 600) // 60 % 60:02}:{int(self.now) % 60:02}Z"
        )
        status = {"token": f"t{len(self.asked)}", "expirationTimestamp": expiry}
        return {"spec": {"expirationSeconds": 600}, "status": status}

    async def get(self) -> str:
        return await self.tokens.get(POD, REQUEST)


@pytest.mark.parametrize(
    ("life", "jitter", "seconds"),
    [(600, 0.0, 480), (600, 1.0, 470), (3607, 0.0, 2885.6), (7 * 86400, 0.0, 86400), (7 * 86400, 0.5, 86395)],
)
def test_a_token_is_renewed_at_80_percent_of_its_life_or_a_day_and_a_little_earlier(
    life: float, jitter: float, seconds: float
) -> None:
    assert renew_at(10_000 + life, life, jitter) == pytest.approx(10_000 + seconds)


async def test_a_token_is_bound_to_its_pod_and_kept_until_it_is_due() -> None:
    issuer = Issuer()
    assert [await issuer.get(), await issuer.get()] == ["t1", "t1"]
    assert issuer.asked[0] == {
        "audiences": ["vault"],
        "expirationSeconds": 600,
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": "u"},
    }
    assert issuer.tokens.due_in(PodUid("u")) == 480
    issuer.now += 481
    assert issuer.tokens.due_in(PodUid("u")) == 0
    assert await issuer.get() == "t2"


async def test_the_old_token_serves_until_it_expires_while_renewal_fails() -> None:
    issuer = Issuer()
    await issuer.get()
    issuer.now += 481
    issuer.error = UnavailableError("away")
    assert await issuer.get() == "t1"
    assert issuer.tokens.due_in(PodUid("u")) == 30
    issuer.now += 120
    with pytest.raises(UnavailableError):
        await issuer.get()
    issuer.error = None
    assert await issuer.get() == "t2"


async def test_a_token_that_was_never_issued_says_why() -> None:
    issuer = Issuer()
    issuer.error = ForbiddenError("no right")
    with pytest.raises(MissingVolumeError, match="no token of service account builder: no right"):
        await issuer.get()
    assert issuer.tokens.due_in(PodUid("u")) is None
