import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.trial_table import read_trials, write_trials
from analysis.trials import RANKED, Sweep, read_sweep
from memmeta.errors import InputError
from sweeps.engine.store import default_uri


@pytest.fixture(scope="session")
def mixed(storage: Path) -> Sweep:
    return read_sweep(default_uri(storage), "mixed")


@pytest.mark.parametrize("name", ["mixed", "factorial", "mixed-60steps-seed1"])
def test_what_is_written_is_what_is_read(storage: Path, tmp_path: Path, name: str) -> None:
    sweep = read_sweep(default_uri(storage), name)
    write_trials(sweep, tmp_path / "trials.csv")
    read = read_trials(tmp_path / "trials.csv")
    assert read.trials == sweep.trials
    assert (read.study, read.name) == (sweep.study, sweep.name)
    if sweep.of(*RANKED):
        assert (read.space, read.memory_limit) == (sweep.space, sweep.memory_limit)


@given(
    message=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1),
    value=st.floats(allow_nan=False),
)
def test_no_digit_and_no_character_is_lost(
    mixed: Sweep, tmp_path_factory: pytest.TempPathFactory, message: str, value: float
) -> None:
    trial = dataclasses.replace(mixed.trials[0], message=message, value=value)
    path = tmp_path_factory.getbasetemp() / "trials.csv"
    write_trials(dataclasses.replace(mixed, trials=(trial,)), path)
    assert read_trials(path).trials == (trial,)


def test_a_file_that_is_no_such_table_is_refused_in_one_line(mixed: Sweep, tmp_path: Path) -> None:
    path = tmp_path / "trials.csv"
    with pytest.raises(InputError, match=r"trials.csv: cannot be read"):
        read_trials(path)
    path.write_text("a,b\n")
    with pytest.raises(InputError, match="has no trials"):
        read_trials(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not a table of trials"):
        read_trials(path)
    write_trials(mixed, path)
    text = path.read_text()
    path.write_text(text.replace("complete", "finished", 1))
    with pytest.raises(InputError, match=r"trials.csv \(line 2\): status"):
        read_trials(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a CSV file"):
        read_trials(path)
