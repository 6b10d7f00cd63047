import base64
import json

import pytest

from slurm_plugin.clients.rest.tokens import weakness


def _with(claims: object) -> str:
    return f"x.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (_with({"exp": 999, "sun": "alice"}), "it expired at 1970-01-01 00:16:39 UTC: renew it"),
        (_with({"exp": 2000, "sun": "bob"}), "it is 'bob''s"),
        (_with({"exp": 2000, "username": "bob"}), "it is 'bob''s"),
        (_with({"exp": 2000, "sun": "alice"}), "signed with the jwt_key"),
        (_with([1]), "it makes no sense"),
        ("no token", "it makes no sense"),
        ("a.%%%.c", "it makes no sense"),
    ],
)
def test_a_refused_token_is_looked_into(token: str, said: str) -> None:
    assert said in weakness(token, "alice", 1000)
