import pytest
from hypothesis import given
from hypothesis import strategies as st

from slurm_plugin.clients.directives import options
from slurm_plugin.errors import SubmissionRejectedError
from slurm_plugin.render import sbatch_value


def test_options_are_read_up_to_the_first_command() -> None:
    script = "#!/bin/bash\n#SBATCH --nodes=1\n\n# a remark\n#SBATCH --hold -p cpu # why\necho\n#SBATCH --time=5\n"
    assert options(script) == {"nodes": "1", "hold": "", "partition": "cpu"}


def test_of_an_option_given_twice_the_last_counts() -> None:
    assert options("#SBATCH --time=5\n#SBATCH --time=7\n") == {"time": "7"}


def test_a_value_may_stand_on_its_own_line() -> None:
    assert options('#SBATCH "--account"\n#SBATCH "phy sics"\n#SBATCH -n4\n') == {"account": "phy sics", "ntasks": "4"}


@given(st.text().filter(str.isprintable))
def test_what_render_quotes_is_read_as_it_was(value: str) -> None:
    assert options(f"#SBATCH --comment={sbatch_value(value)}\n") == {"comment": value}


@pytest.mark.parametrize("line", ["#SBATCH word\n", '#SBATCH --comment="open\n', "#SBATCH --account\n", "#SBATCH -Z\n"])
def test_what_sbatch_would_not_read_is_refused(line: str) -> None:
    with pytest.raises(SubmissionRejectedError):
        options(line)
