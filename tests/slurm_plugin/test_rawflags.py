import pytest

from slurm_plugin.rawflags import read_flags


@pytest.mark.parametrize(
    "word",
    ["--array=1-3", "--arr=1-3", "--wrap=id", "--uid=0", "--ui=0", "--job-n=x", "-D", "-a1", "-Oa1-3", "-sHdsingleton",
     "--export=ALL", "--", "--part=x", "-Hpx", "-IAx", "--nodes=2", "-N2", "-n", "--mem-per-cpu=1", "--gpus", "-G1",
     "--exclusiv", "--dependency=afterok:1", "-d", "--no-requeue", "--sig=x", "-B2", "-S1", "-s", "-HO", "--tres-per-task=x",
     "--container=/x", "--time-min=1"],
)  # fmt: skip
def test_what_would_undo_the_protocols_or_pass_the_ceilings_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="can't be set"):
        read_flags(("--hint=nomultithread", word))


@pytest.mark.parametrize(
    "word", ["--hold", "--hint=nomultithread", "--mem-bind=local", "-wcn1", "-H", "a b", "--mail-type"]
)
def test_another_flag_is_passed_on_as_it_is(word: str) -> None:
    flags = read_flags((word, "value"))
    assert (flags.words, flags.wishes) == ((word, "value"), {})


@pytest.mark.parametrize("word", ["-p", "--account", "-t"])
def test_a_flag_without_its_value_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="lacks its value"):
        read_flags((word,))
