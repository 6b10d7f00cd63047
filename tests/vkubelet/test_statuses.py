from vkubelet.statuses import differs, status_patch

PRESENT = {
    "phase": "Running", "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}], "qosClass": "BestEffort",
    "containerStatuses": [{"name": "a", "imageID": "", "lastState": {}, "state": {"running": {"startedAt": "t"}}}],
    "conditions": [
        {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": "t"},
        {"type": "Foreign", "status": "True"},
    ],
}  # fmt: skip
SAME = {
    "phase": "Running", "reason": None, "podIP": "10.0.0.5", "podIPs": [{"ip": "10.0.0.5"}],
    "containerStatuses": [{"name": "a", "state": {"running": {"startedAt": "t"}}, "imageID": ""}],
    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "t", "reason": None}],
}  # fmt: skip


def test_what_the_api_server_leaves_out_or_adds_is_no_difference():
    assert not differs(SAME, PRESENT)


def test_every_change_is_a_difference():
    assert differs(SAME | {"phase": "Failed"}, PRESENT)
    assert differs(SAME | {"reason": "X"}, PRESENT)
    assert differs(SAME | {"podIP": None}, PRESENT)
    assert differs(SAME | {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": "t"}]}, PRESENT)
    assert differs(SAME | {"conditions": [*SAME["conditions"], {"type": "New", "status": "True"}]}, PRESENT)
    assert differs(SAME | {"containerStatuses": [{"name": "a", "state": {}}]}, PRESENT)


def test_a_patch_names_the_uid_and_replaces_addresses_whole():
    patch = status_patch("u", {"podIPs": [{"ip": "1"}], "phase": "Running"})
    assert patch == {
        "metadata": {"uid": "u"}, "status": {"podIPs": [{"ip": "1"}, {"$patch": "replace"}], "phase": "Running"},
    }  # fmt: skip
