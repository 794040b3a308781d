import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from analysis import compare
from analysis.compare import differences, rows
from analysis.records.trials import Sweep, Trial
from analysis.statistics.pareto import REFERENCE_MEMORY
from memmeta.config import DataConfig, TrainingConfig
from memmeta.errors import InputError
from tests.analysis.made_up import MIB, sweep, trial

SINUSOID = DataConfig(name="sinusoid", ways=1)


def candidate(index: int, value: float, peak: int, algorithm: str, **facts: Any) -> Trial:
    learner = {"algorithm": algorithm, "inner_steps": index}
    return trial("explore", index, value, learner=learner, peak_memory_bytes=peak * MIB, **facts)


def fresh(index: int, seed: int, value: float, test: float, algorithm: str, steps: int) -> Trial:
    learner = {"algorithm": algorithm, "inner_steps": steps}
    tested: dict[str, Any] = {"test_value": test, "test_interval": 0.01}
    return trial("confirm", index, value, seed=seed, learner=learner, **tested)


MIXED = sweep(
    [
        candidate(0, 0.80, 256, "memory_reduced", seconds_per_step=0.5),
        candidate(1, 0.60, 128, "memory_reduced"),
        candidate(2, 0.50, 512, "memory_reduced"),
        candidate(3, 0.70, 512, "maml"),
        candidate(4, 0.10, 64, "maml", status="diverged"),
        fresh(0, 1, 0.70, 0.66, "memory_reduced", 0),
        fresh(1, 2, 0.74, 0.68, "memory_reduced", 0),
        fresh(2, 1, 0.50, 0.52, "memory_reduced", 1),
        # A grid cell that is better than all candidates; no statistic here uses it.
        trial("grid", 0, 0.99, learner={"algorithm": "memory_reduced", "inner_steps": 0}),
    ]
)


def test_each_algorithm_of_a_sweep_has_a_row() -> None:
    maml, reduced = rows([MIXED])
    assert (maml.algorithm, maml.complete, maml.trials) == ("maml", 1, 2)
    assert (reduced.algorithm, reduced.complete, reduced.trials) == ("memory_reduced", 3, 3)
    assert (maml.best, reduced.best) == (0.70, 0.80)
    assert (maml.peak_memory_bytes, maml.least_memory_bytes) == (512 * MIB, 512 * MIB)
    assert (reduced.peak_memory_bytes, reduced.least_memory_bytes) == (256 * MIB, 128 * MIB)
    assert reduced.seconds_per_step == 0.5


def test_fresh_seeds_are_those_of_the_best_confirmed_config() -> None:
    maml, reduced = rows([MIXED])
    assert reduced.seeds == 2
    assert (reduced.val, reduced.test) == pytest.approx((0.72, 0.67))
    assert reduced.val_seed_interval == pytest.approx(12.7062 * 0.02, rel=1e-4)
    assert reduced.test_seed_interval == pytest.approx(12.7062 * 0.01, rel=1e-4)
    assert reduced.test_task_interval == pytest.approx(0.01)
    assert reduced.selection_bias == pytest.approx((0.08 + 0.10) / 2)
    assert (maml.seeds, maml.val, maml.test, maml.selection_bias) == (0, None, None, None)


def test_the_hypervolume_is_the_area_that_the_front_dominates() -> None:
    maml, reduced = rows([MIXED])
    assert REFERENCE_MEMORY == 1024 * MIB
    # Chance level is 0.2, so an accuracy of 0.8 is three quarters of the way to 1.
    assert maml.hypervolume == pytest.approx(0.5 * 0.625)
    assert reduced.hypervolume == pytest.approx(0.75 * 0.75 + 0.125 * 0.5)


def test_a_sweep_without_complete_trials_has_an_empty_row() -> None:
    (row,) = rows([sweep([trial("explore", 0, 0.9, status="diverged")])])
    assert (row.complete, row.trials, row.best, row.hypervolume) == (0, 1, None, None)
    compare.show(Console(width=80), [row])


def test_sweeps_without_candidates_are_refused() -> None:
    cells = sweep([trial("grid", index, 0.5) for index in range(2)])
    with pytest.raises(InputError, match=r"no explore or search trials to compare \(2 grid\)"):
        rows([MIXED, cells])


def with_training(sweep: Sweep, **changes: Any) -> Sweep:
    def changed(trial: Trial) -> Trial:
        training = TrainingConfig(**trial.config.training.model_dump() | changes)
        config = trial.config.model_copy(update={"training": training})
        return dataclasses.replace(trial, config=config)

    return dataclasses.replace(sweep, trials=tuple(map(changed, sweep.trials)))


def test_different_budgets_are_reported() -> None:
    longer = with_training(MIXED, tasks=400, val_tasks=60)
    assert differences([MIXED, longer]) == (
        "the sweeps differ in tasks 100 / 400, val_tasks 50 / 60"
    )
    assert differences([MIXED, MIXED]) is None
    assert differences([MIXED]) is None


def test_different_data_and_hardware_are_reported() -> None:
    other = sweep(
        [
            trial(
                "explore",
                0,
                0.5,
                data=DataConfig(name="glyphs", shots=1),
                data_digest="0123456789",
                hardware="GPU, torch 2",
            )
        ]
    )
    assert differences([other, MIXED]) == (
        "the sweeps differ in dataset glyphs 01234567 / glyphs 9e1d, shots 1 / 5, "
        "inner_steps 20 / varied, hardware GPU, torch 2 / CPU, torch 2"
    )


def test_different_learners_and_memory_limits_are_reported() -> None:
    def of(limit: int | None = None, **learner: Any) -> Sweep:
        trials = (
            trial("explore", n, 0.5, learner={"ridge": ridge, **learner})
            for n, ridge in enumerate((0.1, 0.2))
        )
        return sweep(trials, memory_limit=limit)

    wide, narrow = of(filters=64), of(filters=32, limit=200 * MIB)
    assert differences([wide, narrow]) == (
        "the sweeps differ in filters 64 / 32, memory limit – / 200.0 MiB"
    )
    steps = with_training(wide, tasks=None, iterations=10)
    assert differences([steps, wide]) == "the sweeps differ in iterations 10 / –, tasks – / 100"
    # The algorithm is in the rows, and ANIL has no N to compare.
    assert differences([of(algorithm="anil"), of(cg_steps=3)]) is None


def printed(capsys: pytest.CaptureFixture[str], sweeps: Sequence[Sweep], width: int) -> list[str]:
    compare.show(Console(width=width), rows(sweeps))
    return capsys.readouterr().out.splitlines()


def cells(lines: Sequence[str], label: str) -> list[str]:
    """The cells with this label, in all tables below each other."""
    found = (line.strip() for line in lines)
    return [line.removeprefix(label).strip() for line in found if line.startswith(label)]


def test_every_value_has_the_unit_of_its_metric(capsys: pytest.CaptureFixture[str]) -> None:
    mlp = {"backbone": "mlp"}
    tested: dict[str, Any] = {"test_value": 0.6, "test_interval": 0.1}
    waves = sweep(
        [
            trial("search", 0, 0.4, data=SINUSOID, learner=mlp),
            trial("confirm", 0, 0.5, data=SINUSOID, learner=mlp, seed=1, **tested),
        ]
    )
    lines = printed(capsys, [MIXED, waves], 40)  # one column in each table
    assert cells(lines, "fresh seeds, validation") == ["–", "72 ± 25 % (2)", "0.500 (1)"]
    assert cells(lines, "± over test tasks") == ["–", "1.0 points", "0.1"]
    assert cells(lines, "selection bias") == ["–", "9.0 points", "0.1"]
    assert cells(lines, "best, validation") == ["70.0 ± 2.0 %", "80.0 ± 2.0 %", "0.400 ± 0.020"]


def words(lines: Sequence[str]) -> set[str]:
    return {word for line in lines for word in line.split() if "─" not in word}


@pytest.mark.parametrize("width", [80, 40])
def test_nothing_is_cut_in_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], width: int
) -> None:
    long = dataclasses.replace(MIXED, name="a_study_of_many_words-3200tasks-seed0-v2")
    lines = printed(capsys, [long], width)
    wide = printed(capsys, [long], 400)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    assert words(wide) <= words(lines)
    tables = [line for line in lines if line.startswith("data set")]
    assert len(tables) == (1 if width == 80 else 2)
