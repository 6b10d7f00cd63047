from typing import Any

import pytest

from slurm_plugin.annotations import Annotations
from slurm_plugin.config import PolicyRule
from slurm_plugin.errors import PolicyError
from slurm_plugin.policy import check_ceiling, placement, raw_flags, rule_for

from .manifests import make_pod

RULES = (
    PolicyRule(namespaces=("physics",), service_accounts=("big",), user="bob"),
    PolicyRule(namespaces=("physics", "chem-*"), user="alice"),
)


@pytest.mark.parametrize(
    ("namespace", "account", "user"),
    [("physics", "big", "bob"), ("physics", "small", "alice"), ("chem-1", "big", "alice")],
)
def test_the_first_rule_that_matches_decides(namespace: str, account: str, user: str) -> None:
    assert rule_for(RULES, make_pod(metadata={"namespace": namespace}, serviceAccountName=account)).user == user


@pytest.mark.parametrize("namespace", ["default", "chem", "Physics", "physics2"])
def test_a_namespace_without_a_rule_is_refused(namespace: str) -> None:
    with pytest.raises(PolicyError, match="no policy rule") as caught:
        rule_for(RULES, make_pod(metadata={"namespace": namespace}))
    assert caught.value.field == "metadata.namespace"


def test_an_annotation_of_the_pod_can_not_choose_the_rule() -> None:
    pod = make_pod(annotations={"slurmlet.io/account": "bob"}, metadata={"namespace": "physics"})
    assert rule_for(RULES, pod).user == "alice"


@pytest.mark.parametrize(
    ("allowed", "wish", "chosen"),
    [
        (("cpu", "gpu"), "", "cpu"), (("cpu", "gpu"), "gpu", "gpu"), (("*",), "", ""), (("*",), "any", "any"), ((), "", ""),
        (("cpu", "*"), "", ""),
    ],
)  # fmt: skip
def test_a_wish_or_the_first_allowed_name_is_chosen(allowed: tuple[str, ...], wish: str, chosen: str) -> None:
    rule = PolicyRule(partitions=allowed, accounts=allowed, qos=allowed)
    place = placement(rule, Annotations(partition=wish, account=wish, qos=wish))
    assert (place.partition, place.account, place.qos) == (chosen,) * 3


@pytest.mark.parametrize(
    ("rule", "wish"),
    [
        ({"partitions": ["cpu"]}, {"partition": "gpu"}),
        ({"partitions": ["cpu", "gpu"]}, {"partition": "cpu,gpu"}),
        ({"partitions": ["cpu"]}, {"partition": "CPU"}),
        ({}, {"account": "other"}),
        ({}, {"qos": "high"}),
        ({}, {"reservation": "course"}),
        ({}, {"requeue": True}),
        ({"exclusive": False}, {"exclusive": True}),
        ({}, {"nice": -1}),
        ({}, {"priority": 1}),
        ({"max_priority": 5}, {"priority": 6}),
        ({}, {"wckey": "x"}),
        ({"constraints": ["a100"]}, {"constraint": "a100|[h100*2]"}),
        ({"licenses": ["ansys"]}, {"licenses": "ansys:1,matlab:2"}),
    ],
)
def test_a_wish_that_is_not_allowed_is_refused_by_its_annotation(rule: Any, wish: dict[str, Any]) -> None:
    with pytest.raises(PolicyError) as caught:
        placement(PolicyRule.model_validate(rule), Annotations(**wish))
    assert caught.value.field == f"metadata.annotations[slurmlet.io/{next(iter(wish))}]"


def test_what_is_allowed_is_passed_on() -> None:
    rule = PolicyRule(reservations=("course",), requeue=True)
    wishes = Annotations(reservation="course", requeue=True, exclusive=True, nice=0, constraint="a&b", licenses="x:2")
    place = placement(rule, wishes)
    assert (place.reservation, place.requeue, place.exclusive, place.nice) == ("course", True, True, 0)
    assert (place.constraint, place.licenses) == ("a&b", "x:2")


def test_the_first_reservation_is_no_default() -> None:
    assert placement(PolicyRule(reservations=("course",)), Annotations()).reservation == ""


def test_raw_flags_need_a_rule_that_says_so() -> None:
    wishes = Annotations(flags=("--hint=nomultithread",))
    assert raw_flags(PolicyRule(raw_flags=True), wishes) == wishes.flags
    assert raw_flags(PolicyRule(), Annotations()) == ()
    with pytest.raises(PolicyError) as caught:
        raw_flags(PolicyRule(), wishes)
    assert caught.value.field == "metadata.annotations[slurmlet.io/flags]"


def test_raw_flags_pass_neither_the_features_nor_the_ceiling_of_a_rule() -> None:
    rule = PolicyRule(raw_flags=True, constraints=("a100",), max_cpus=4)
    assert raw_flags(rule, Annotations(flags=("--prefer=a100",))) == ("--prefer=a100",)
    for flag, words in (
        ("--prefer=h100", "'h100' is not"),
        ("--batch=a100&x", "'x' is not"),
        ("--hint=nomultithread", "more CPUs"),
    ):
        with pytest.raises(PolicyError, match=words) as caught:
            raw_flags(rule, Annotations(flags=(flag,)))
        assert caught.value.field == "metadata.annotations[slurmlet.io/flags]"


@pytest.mark.parametrize(("value", "ceiling"), [(1, 1), (None, 1), (2, None), (0, 0)])
def test_a_ceiling_itself_is_allowed_and_none_is_unlimited(value: int | None, ceiling: int | None) -> None:
    check_ceiling(value, ceiling, "f", "CPUs")


def test_more_than_the_ceiling_is_refused_with_both_numbers() -> None:
    with pytest.raises(PolicyError, match=r"^spec\.x: 3 CPUs is more than this namespace may use \(2 CPUs\)$"):
        check_ceiling(3, 2, "spec.x", "CPUs")


def test_a_node_narrows_the_partitions_and_its_first_allowed_one_is_the_default() -> None:
    node = ("gpu", "long")
    assert placement(PolicyRule(), Annotations(), node=node).partition == "gpu"
    assert placement(PolicyRule(partitions=("cpu", "long", "gpu")), Annotations(), node=node).partition == "long"
    assert placement(PolicyRule(), Annotations(partition="long"), node=node).partition == "long"
    for rule, wish in ((PolicyRule(), "cpu"), (PolicyRule(partitions=("cpu",)), ""), (PolicyRule(partitions=()), "")):
        with pytest.raises(PolicyError) as caught:
            placement(rule, Annotations(partition=wish), node=node)
        assert caught.value.field == "metadata.annotations[slurmlet.io/partition]"


def test_a_priority_class_is_what_the_rule_says_unless_the_pod_says_more() -> None:
    rule = PolicyRule.model_validate({"qos": ["long"], "priority_classes": {"urgent": {"nice": -5, "qos": "express"}}})
    urgent = placement(rule, Annotations(), priority_class="urgent")
    assert (urgent.nice, urgent.qos) == (-5, "express")
    own = placement(rule, Annotations(nice=7, qos="long"), priority_class="urgent")
    assert (own.nice, own.qos) == (7, "long")
    assert placement(rule, Annotations(), priority_class="other").qos == "long"
    with pytest.raises(PolicyError, match="allowed: one of long"):
        placement(rule, Annotations(qos="express"), priority_class="urgent")
