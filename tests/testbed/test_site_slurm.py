from testbed.site import configuration
from testbed.site.slurm import unusable


def test_idle_allocated_and_drained_nodes_are_usable() -> None:
    assert unusable("cn1 idle\ncn2 mixed\ncn2 mixed\ncn3 drained\n") == []


def test_silent_down_and_unknown_nodes_are_not() -> None:
    assert unusable("cn1 idle*\ncn2 down\ncn3 unknown\ncn4 idle\n") == ["cn1 idle*", "cn2 down", "cn3 unknown"]


def test_no_answer_means_no_node() -> None:
    assert unusable("") == [node.name for node in configuration.NODES]
