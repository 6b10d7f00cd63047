import pytest

from vkubelet.api.logs import LogsRefusedError, check_container, log_options

NOW = 1_700_000_000.0


def test_parameters_are_read_as_a_kubelet_reads_them():
    options = log_options(
        {
            "follow": "true",
            "previous": "0",
            "timestamps": "",
            "tailLines": "3",
            "limitBytes": "5",
            "sinceSeconds": "60",
        },
        now=NOW,
    )
    assert options.follow
    assert not options.previous
    assert options.timestamps
    assert (options.tail_lines, options.limit_bytes, options.since_time) == (3, 5, NOW - 60)
    assert log_options({"sinceTime": "2023-11-14T22:13:20Z"}, now=0).since_time == NOW
    assert log_options({"sinceTime": "2023-11-14T23:13:20.5+01:00"}, now=0).since_time == NOW + 0.5
    assert log_options({"tail": "all", "tailLines": "3"}, now=NOW).tail_lines is None
    assert log_options({"tail": "4"}, now=NOW).tail_lines == 4
    assert log_options({"stream": "All"}, now=NOW) == log_options({}, now=NOW)
    assert log_options({"stream": "Stderr"}, now=NOW).stream == "Stderr"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"tailLines": "x"}, 400),
        ({"tailLines": "1_0"}, 400),
        ({"tailLines": "٣"}, 400),
        ({"sinceSeconds": "9" * 400}, 400),
        ({"limitBytes": str(1 << 63)}, 400),
        ({"sinceTime": "yesterday"}, 400),
        ({"sinceTime": "2023-11-14T22:13:20"}, 400),
        ({"tailLines": "-1"}, 422),
        ({"limitBytes": "0"}, 422),
        ({"sinceSeconds": "0"}, 422),
        ({"sinceSeconds": "1", "sinceTime": "2023-11-14T22:13:20Z"}, 422),
        ({"stream": "Stdin"}, 422),
        ({"stream": "Stdout", "tailLines": "1"}, 422),
    ],
)
def test_what_a_kubelet_refuses_is_refused_with_its_status(query, status):
    with pytest.raises(LogsRefusedError) as error:
        log_options(query, now=NOW)
    assert error.value.status == status


def pod(state: dict | None, last: dict | None = None) -> dict:
    statuses = [] if state is None else [{"name": "c", "state": state, "lastState": last or {}}]
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]},
        "status": {"containerStatuses": statuses},
    }


ENDED = {"terminated": {"containerID": "slurm://1.0/c/0"}}


@pytest.mark.parametrize(
    ("subject", "container", "previous", "status", "text"),
    [
        (pod({}), "x", False, 404, 'container "x" not found in pod "p"\n'),
        (pod(None), "c", False, 400, 'container "c" in pod "p" is not available'),
        (pod({"waiting": {"reason": "ContainerCreating"}}), "c", False, 400,
         'container "c" in pod "p" is waiting to start: ContainerCreating'),
        (pod({"waiting": {"reason": "ErrImagePull"}}), "c", False, 400,
         'container "c" in pod "p" is waiting to start: image can\'t be pulled'),
        (pod({"waiting": {"reason": "ImagePullBackOff"}}), "c", False, 400,
         'container "c" in pod "p" is waiting to start: trying and failing to pull image'),
        (pod({}), "c", False, 400, 'container "c" in pod "p" is waiting to start - no logs yet'),
        (pod({"terminated": {}}), "c", False, 400, 'container "c" in pod "p" is terminated'),
        (pod({"running": {}}), "c", True, 400, 'previous terminated container "c" in pod "p" not found'),
    ],
)  # fmt: skip
def test_why_there_is_no_log_is_said_in_the_kubelets_words(subject, container, previous, status, text):
    with pytest.raises(LogsRefusedError) as error:
        check_container(subject, container, previous=previous)
    assert (error.value.status, str(error.value)) == (status, text)


@pytest.mark.parametrize(
    ("subject", "previous"),
    [
        (pod({"running": {}}), False),
        (pod(ENDED), False),
        (pod({"waiting": {"reason": "CrashLoopBackOff"}}, ENDED), False),
        (pod({"running": {}}, ENDED), True),
    ],
)
def test_a_container_that_wrote_something_has_a_log(subject, previous):
    check_container(subject, "c", previous=previous)
