import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analysis.records.trial_table import data_frame, read_trials, write_trials
from analysis.records.trials import RANKED, OtherScore, Sweep, read_sweep
from memmeta.config import Before, LearnerConfig
from memmeta.errors import InputError
from sweeps.engine.stores.store import default_uri
from tests.analysis.made_up import sweep, trial


@pytest.fixture(scope="session")
def mixed(storage: Path) -> Sweep:
    return read_sweep(default_uri(storage), "mixed")


@pytest.mark.parametrize("name", ["mixed", "factorial", "mixed-60steps-seed1"])
def test_a_written_file_is_read_back(storage: Path, tmp_path: Path, name: str) -> None:
    sweep = read_sweep(default_uri(storage), name)
    write_trials(sweep, tmp_path / "trials.csv")
    read = read_trials(tmp_path / "trials.csv")
    assert read.trials == sweep.trials
    assert (read.study, read.name) == (sweep.study, sweep.name)
    if sweep.trials_in(*RANKED):
        assert (read.space, read.memory_limit) == (sweep.space, sweep.memory_limit)


def test_scores_on_other_data_are_read_back(tmp_path: Path) -> None:
    scores = {"fc100": OtherScore(0.3, 0.01, "f"), "my.data:SET": OtherScore(None, None, "s")}
    tested: dict[str, Any] = {"test_value": 0.5, "test_interval": 0.01}
    trials = [
        trial("search", 0, 0.5),
        trial("confirm", 0, 0.5, seed=1, others=scores, **tested),
        trial("confirm", 1, 0.5, seed=2, others={"omniglot": OtherScore(0.1, 0.1, "o")}, **tested),
    ]
    write_trials(sweep(trials), tmp_path / "trials.csv")
    read = read_trials(tmp_path / "trials.csv")
    assert read.trials == tuple(trials)
    assert read.others == ("fc100", "my.data:SET", "omniglot")
    columns = data_frame(sweep(trials))
    assert columns["test_value_fc100"].isna().tolist() == [True, False, True]
    text = (tmp_path / "trials.csv").read_text()
    (tmp_path / "trials.csv").write_text(text.replace(",0.3,", ",inf,"))
    with pytest.raises(InputError, match="test_value_fc100: a finite number"):
        read_trials(tmp_path / "trials.csv")


@given(
    message=st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1),
    value=st.floats(-1e100, 1e100),
)
@example(message="'=1+1", value=-0.0)
@example(message='=HYPERLINK("x")', value=1e-300)
def test_numbers_and_text_are_exact(
    mixed: Sweep, tmp_path_factory: pytest.TempPathFactory, message: str, value: float
) -> None:
    trial = dataclasses.replace(mixed.trials[0], message=message, value=value)
    path = tmp_path_factory.getbasetemp() / "trials.csv"
    write_trials(dataclasses.replace(mixed, trials=(trial,)), path)
    assert read_trials(path).trials == (trial,)


def test_a_run_without_a_name_and_a_long_list_of_choices_are_read(
    mixed: Sweep, tmp_path: Path
) -> None:
    trial = dataclasses.replace(mixed.trials_in("search")[0], run_name="")
    space = {"ridge": [1 / (1 + i) for i in range(9000)]}
    settings = {"search": {**mixed.settings["search"], "space": space}}
    path = tmp_path / "trials.csv"
    write_trials(dataclasses.replace(mixed, trials=(trial,), settings=settings), path)
    read = read_trials(path)
    assert read.trials == (trial,)
    assert read.settings["search"]["space"] == space


def test_a_file_that_is_not_a_table_of_trials_is_refused(mixed: Sweep, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("stage_settings", "[]", "stage_settings: an object is accepted, got '[]'"),
        ("stage_settings", "{", "stage_settings: not JSON"),
        ("stage_settings", '{"space": []}', "stage_settings: space: "),
        ("stage_settings", '{"space": {"ridge": {"low": 1}}}', "stage_settings: space.ridge: "),
        ("stage_settings", '{"memory_limit": "big"}', "stage_settings: memory_limit: "),
        ("stage_settings", '{"tuned": {"ridge": 1}}', "stage_settings: tuned.ridge: "),
        ("version", "3", "written by a later version of memmeta"),
        ("version", "new", "version: a whole number is accepted"),
        ("value", "", "value: is missing"),
        ("value", "nan", "value: a finite number up to 1e+100 is accepted, got nan"),
        ("seconds", "inf", "seconds: a finite number up to 1e+100 is accepted, got inf"),
        ("value", "-1e308", "value: a finite number up to 1e+100 is accepted, got -1e+308"),
        ("peak_memory_bytes", "0", "peak_memory_bytes: a number above 0 is accepted, got 0"),
    ],
)
def test_a_damaged_field_is_named(
    mixed: Sweep, tmp_path: Path, field: str, value: str, said: str
) -> None:
    path = tmp_path / "trials.csv"
    write_trials(mixed, path)
    with path.open(newline="") as file:
        header, first, *others = csv.reader(file)
    first[header.index(field)] = value
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, first, *others])
    with pytest.raises(InputError) as refusal:
        read_trials(path)
    assert refusal.value.message.startswith(f"{path} (line 2): {said}")
    assert "\n" not in refusal.value.message


def test_missing_columns_have_former_defaults(
    mixed: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.csv"
    write_trials(mixed, path)
    with path.open(newline="") as file:
        lines = [dict(line) for line in csv.DictReader(file)]
    for line in lines:
        # A setting of a later version, a setting that is None, and a fact.
        assert line.pop("augment") == "False"
        assert line["chunk"] == ""
        del line["gpus"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    fields = LearnerConfig.model_fields
    monkeypatch.setattr(fields["augment"], "metadata", [Before(True)])
    monkeypatch.setattr(fields["chunk"], "metadata", [Before(7), *fields["chunk"].metadata])
    with pytest.raises(InputError, match="augment is for cifar_fs"):
        read_trials(path)
    monkeypatch.setattr(fields["augment"], "metadata", [Before(False)])
    for read in read_trials(path).trials:
        assert read.gpus is None
        assert read.config.learner.chunk is None


@pytest.mark.parametrize("change", [lambda line: line.rpartition(",")[0], lambda line: line + ",1"])
def test_a_line_with_a_wrong_number_of_fields_is_named(
    mixed: Sweep, tmp_path: Path, change: Callable[[str], str]
) -> None:
    path = tmp_path / "trials.csv"
    write_trials(dataclasses.replace(mixed, settings={}, trials=mixed.trials[:2]), path)
    *lines, last = path.read_text().splitlines()
    path.write_text("\n".join([*lines, change(last)]))
    with pytest.raises(InputError, match=r"\(line 3\): .* fields as the first line"):
        read_trials(path)


def test_the_arguments_and_weights_of_an_own_network_are_read_back(
    mixed: Sweep, tmp_path: Path
) -> None:
    (tmp_path / "weights.pt").write_bytes(b"any content")
    learner = LearnerConfig(
        backbone="timm/resnet18",
        backbone_args={"drop_path_rate": 0.5, "layers": [1, 2], "name": "a, b"},
        weights=str(tmp_path / "weights.pt"),
        train_last=0,
    )
    config = mixed.trials[0].config.model_copy(update={"learner": learner})
    trial = dataclasses.replace(mixed.trials[0], config=config, key=config.key)
    write_trials(dataclasses.replace(mixed, trials=(trial,)), tmp_path / "trials.csv")
    (tmp_path / "weights.pt").unlink()
    assert read_trials(tmp_path / "trials.csv").trials == (trial,)
