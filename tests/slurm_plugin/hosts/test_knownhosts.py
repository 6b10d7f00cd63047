import base64
import hashlib
import hmac
from pathlib import Path

import pytest

from slurm_plugin.errors import HostError
from slurm_plugin.hosts.knownhosts import Line, load, parse

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X"


def line(names: str) -> Line:
    (found,) = parse(f"{names} ssh-ed25519 {KEY} a comment\n", "known")
    return found


@pytest.mark.parametrize(
    ("names", "name", "fits"),
    [
        ("login", "login", True),
        ("LOGIN.example.org", "login.Example.org", True),
        ("login", "[login]:2222", False),
        ("[login]:2222", "[login]:2222", True),
        ("a,login", "login", True),
        ("*.example.org", "login.example.org", True),
        ("*.example.org", "example.org", False),
        ("login?", "login1", True),
        ("login?", "login12", False),
        ("*.example.org,!bad.example.org", "bad.example.org", False),
        ("!bad.example.org,*.example.org", "good.example.org", True),
        ("!bad.example.org", "good.example.org", False),
        ("login.example.org", "loginxexample.org", False),
        ("log[in]", "login", False),
        ("|1|not-base64|either", "login", False),
    ],
)
def test_names_and_patterns_mean_what_sshd_says(names: str, name: str, fits: bool) -> None:
    assert line(names).speaks_of(name) is fits


def test_hashed_names_are_found() -> None:
    salt = b"s" * 20
    digest = hmac.new(salt, b"[login]:2222", hashlib.sha1).digest()
    hashed = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"
    assert line(hashed).speaks_of("[login]:2222")
    assert not line(hashed).speaks_of("login")


def test_markers_comments_and_places() -> None:
    text = f"# of the site\n\n@cert-authority *\tssh-ed25519 {KEY}\n  @revoked x ssh-ed25519 {KEY}\n"
    authority, revoked = parse(text, "known")
    assert (authority.marker, authority.place) == ("@cert-authority", "known, line 3")
    assert (revoked.marker, revoked.names, revoked.place) == ("@revoked", ("x",), "known, line 4")
    assert authority.fingerprint.startswith("ssh-ed25519 SHA256:")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("login ssh-ed25519\n", "known, line 1: expected host names"),
        (f"\n@trust * ssh-ed25519 {KEY}\n", "known, line 2: @trust is no marker"),
        ("login ssh-ed25519 AAAAC3Nz*\n", "known, line 1: the ssh-ed25519 key is not whole"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(text: str, said: str) -> None:
    with pytest.raises(HostError, match=said):
        parse(text, "known")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=f"{tmp_path}/none: No such file"):
        load([f"{tmp_path}/none"])
