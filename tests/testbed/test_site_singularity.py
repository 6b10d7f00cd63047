from testbed.site import singularity


def test_it_is_built_without_a_setuid_half_and_for_the_place_where_the_site_has_it() -> None:
    script = singularity.build_script("/opt/x")
    assert "--prefix=/opt/x --without-suid " in script
    for file in ("/opt/x/bin/singularity", "/opt/x/libexec/singularity/bin/starter", "/opt/x/etc/singularity/ecl.toml"):
        assert f" {file}" in script
    assert "starter-suid" not in script
    assert "buildkit" not in script, "the dearest part of it, which only builds images"
