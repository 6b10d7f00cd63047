from decimal import Decimal

import pytest

from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.pod import Pod, ResourceFieldSelector
from slurm_plugin.resolution.fields import field_value, format_map, quote, resource_value

POD = Pod.model_validate({
    "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": 'q"\n\\'}, "annotations": {"x/y": "z"}},
    "spec": {
        "nodeName": "slurm", "serviceAccountName": "sa",
        "containers": [
            {"name": "main", "image": "i", "resources": {"limits": {"cpu": "1500m", "memory": "100Mi"}, "requests": {"cpu": "250m"}}},
            {"name": "bare", "image": "i"},
        ],
    },
})  # fmt: skip
NODE = {"cpu": Decimal(16), "memory": Decimal(2**30)}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "p"),
        ("metadata.namespace", "n"),
        ("metadata.uid", "u"),
        ("spec.nodeName", "slurm"),
        ("spec.serviceAccountName", "sa"),
        ("metadata.labels['b']", "2"),
        ("metadata.labels['absent']", ""),
        ("metadata.annotations['x/y']", "z"),
        ("metadata.labels", 'a="q\\"\\n\\\\"\nb="2"'),
        ("metadata.annotations", 'x/y="z"'),
    ],
)
def test_fields_of_the_downward_api(path, value):
    assert field_value(POD, path, "here") == value


def test_an_unknown_field_is_refused_by_the_place_that_names_it():
    with pytest.raises(UnsupportedFieldError, match=r"spec\.x.*status\.phase"):
        field_value(POD, "status.phase", "spec.x")


@pytest.mark.parametrize(
    ("resource", "container", "divisor", "value"),
    [
        ("limits.cpu", "main", None, "2"),
        ("limits.cpu", "main", "1m", "1500"),
        ("requests.cpu", "main", "0", "1"),
        ("limits.memory", "main", "1Mi", "100"),
        ("limits.memory", "main", "1M", "105"),
        ("limits.cpu", "bare", None, "16"),
        ("limits.memory", "bare", None, str(2**30)),
        ("requests.memory", "bare", None, "0"),
    ],
)
def test_resources_are_rounded_up_in_units_of_the_divisor(resource, container, divisor, value):
    selector = ResourceFieldSelector(resource=resource, container_name=container, divisor=divisor)
    assert resource_value(POD, selector, None, "here", NODE) == value


def test_a_selector_without_a_name_means_the_container_it_stands_in():
    selector = ResourceFieldSelector(resource="limits.cpu")
    assert resource_value(POD, selector, POD.spec.containers[1], "here", NODE) == "16"
    with pytest.raises(UnsupportedFieldError):
        resource_value(POD, selector, None, "here", NODE)


def test_quotes_are_gos():
    assert quote('tab\t quote" back\\ \x01 é 世 \u200b \U000e0001') == (
        r'"tab\t quote\" back\\ \x01 é 世 \u200b \U000e0001"'
    )
    assert format_map({}) == ""
