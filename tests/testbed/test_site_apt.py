from testbed.site import apt


def test_mirror_is_the_main_debian_archive_not_the_security_one() -> None:
    targets = [
        "http://security.example/debian-security/|Debian|Debian-Security",
        "http://vendor.example/apt/|Vendor|Debian",
        "http://mirror.example/debian/|Debian|Debian",
    ]
    assert apt.parse_mirror(targets) == "http://mirror.example/debian"


def test_another_distribution_has_no_debian_mirror() -> None:
    assert apt.parse_mirror(["http://archive.example/ubuntu/|Ubuntu|Ubuntu"]) is None


def test_given_mirror_wins_over_apt(monkeypatch) -> None:
    monkeypatch.setenv(apt.MIRROR_VARIABLE, "http://mine.example/debian/")
    assert apt.debian_mirror() == "http://mine.example/debian"


def test_only_settings_about_fetching_are_taken_over() -> None:
    dump = [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::Languages:: "de";',
        'DPkg::Post-Invoke:: "something of this machine";',
    ]
    assert apt.parse_network_options(dump) == f"{dump[0]}\n{dump[1]}\n"
