import json

from vkubelet.api.streaming.status import encode, ended, failed


def test_success_is_a_status_since_version_four_and_nothing_before():
    assert json.loads(encode(ended(0), "v4.channel.k8s.io")) == {"metadata": {}, "status": "Success"}
    assert json.loads(encode(ended(0), "v5.channel.k8s.io"))["status"] == "Success"
    assert encode(ended(0), "v3.channel.k8s.io") == encode(ended(0), "") == b""


def test_an_exit_code_is_a_cause():
    status = json.loads(encode(ended(7), "v4.base64.channel.k8s.io"))
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert status["reason"] == "NonZeroExitCode"
    assert encode(ended(7), "v2.channel.k8s.io") == b"command terminated with non-zero exit code: 7"


def test_what_could_not_run_is_an_internal_error():
    status = json.loads(encode(failed("no such container"), "v4.channel.k8s.io"))
    assert (status["reason"], status["code"]) == ("InternalError", 500)
    assert status["message"] == "Internal error occurred: no such container"
