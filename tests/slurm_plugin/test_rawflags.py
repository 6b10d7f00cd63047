import pytest

from slurm_plugin.rawflags import read_flags


@pytest.mark.parametrize(
    "word",
    ["--array=1-3", "--arr=1-3", "--wrap=id", "--uid=0", "--ui=0", "--job-n=x", "-D", "-a1", "-Oa1-3", "-sHdsingleton",
     "--export=ALL", "--", "--part=x", "-Hpx", "-IAx", "--nodes=2", "-N2", "-n", "--mem-per-cpu=1", "--gpus", "-G1",
     "--exclusiv", "--dependency=afterok:1", "-d", "--no-requeue", "--sig=x", "-B2", "-S1", "-s", "-HO", "--tres-per-task=x",
     "--container=/x", "--time-min=1", "--nodefile=/etc/passwd", "-F/etc/passwd", "-HF/x", "--bb=x", "--bbf=/x", "--reboot",
     "--ntasks-per-tres=2", "--mcs-label=x", "--propagate", "--profile=all", "--acctg-freq=0", "--segment=2", "--x11", "--hol",
     "--hold=x", "--some-flag-of-the-future", "-Hwn1", "-"],
)  # fmt: skip
def test_what_is_not_known_to_be_harmless_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="can't be set"):
        read_flags(("--mem-bind=local", word))


@pytest.mark.parametrize(
    "word", ["--hold", "--hint=nomultithread", "--mem-bind=local", "-H", "-Hvbnow", "--begin", "a b", "--mail-type"]
)
def test_another_flag_is_passed_on_as_it_is(word: str) -> None:
    flags = read_flags((word, "value"))
    assert (flags.words, flags.wishes) == ((word, "value"), {})


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (("--prefer", "a100&ib"), "--prefer=a100&ib"),
        (("--batch=cpu",), "--batch=cpu"),
        (("-wn1,n[2-3]",), "--nodelist=n1,n[2-3]"),
        (("-x", "n1"), "--exclude=n1"),
    ],
)
def test_features_and_nodes_are_kept_as_one_word_each(words: tuple[str, ...], kept: str) -> None:
    assert read_flags(words).words == (kept,)


@pytest.mark.parametrize("word", ["--nodelist=/etc/passwd", "-x./nodes", "--prefer=a b", "--exclude="])
def test_a_list_of_nodes_is_no_file_and_a_feature_is_one_word(word: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        read_flags((word,))


@pytest.mark.parametrize("word", ["-p", "--account", "-t"])
def test_a_flag_without_its_value_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="lacks its value"):
        read_flags((word,))
