"""An API server that knows two tokens: alice's (``good``), who may everything, and bob's (``poor``), who may nothing."""

from ..kube import FakeKube

GOOD = {"Authorization": "Bearer good"}
POOR = {"Authorization": "Bearer poor"}
_USERS = {"good": "alice", "poor": "bob"}


class ReviewingKube(FakeKube):
    """Answers TokenReviews and SubjectAccessReviews."""

    def __init__(self) -> None:
        super().__init__()
        self.creations["/apis/authentication.k8s.io/v1/tokenreviews"] = lambda body: {
            "status": {
                "authenticated": body["spec"]["token"] in _USERS,
                "user": {"username": _USERS.get(body["spec"]["token"])},
            }
        }
        self.creations["/apis/authorization.k8s.io/v1/subjectaccessreviews"] = lambda body: {
            "status": {"allowed": body["spec"]["user"] == "alice"}
        }
