"""Main effects and tuned cells, compared with the arrays that define the trials."""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from analysis.records.trials import Trial
from analysis.statistics.factorial import (
    Cell,
    CellsTable,
    Effect,
    cells_table,
    difference,
    main_effects,
    varying,
)
from analysis.statistics.responses import PEAK_MEMORY, STEP_TIME, quality
from memmeta.config import DataConfig
from memmeta.metric import ACCURACY, MSE
from tests.analysis.made_up import DATA, MIB, trial

WAVES = DataConfig(name="sinusoid", ways=1)
QUALITY = quality(MSE)
"""A response without a unit, so effects have the scale of the trials' values."""


def grid(
    seeds: Iterable[int], value: Callable[[dict[str, Any], int], float], **levels: Iterable[Any]
) -> list[Trial]:
    """Complete regression trials at all combinations of the levels and seeds."""
    combinations = [
        dict(zip(levels, values, strict=True)) for values in itertools.product(*levels.values())
    ]
    return [
        trial(
            "grid",
            index,
            value(learner, seed),
            seed=seed,
            data=WAVES,
            learner={"backbone": "mlp"} | learner,
        )
        for index, (seed, learner) in enumerate(itertools.product(seeds, combinations))
    ]


def half_width(values: Iterable[float]) -> float:
    """Half-width of the 95 % interval of the mean."""
    array = np.array(list(values))
    return float(t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))


def lost(one: Trial) -> Trial:
    return dataclasses.replace(one, status="diverged", value=None, peak_memory_bytes=None)


def without_value(
    trials: Iterable[Trial], learner: Mapping[str, Any], seeds: set[int]
) -> list[Any]:
    """The trials, with those of these settings and seeds changed to diverged."""
    return [
        lost(one)
        if one.config.seed in seeds and learner.items() <= one.config.learner.model_dump().items()
        else one
        for one in trials
    ]


OF_STEPS = {1: 0.1, 5: 0.4, 20: 0.7}
OF_CG = {2: 0.0, 10: 0.05}
OF_SEED = {0: 0.00, 1: 0.02, 2: 0.07}


def additive(learner: dict[str, Any], seed: int) -> float:
    return OF_STEPS[learner["inner_steps"]] + OF_CG[learner["cg_steps"]] + OF_SEED[seed]


def test_effects_of_an_additive_response_are_its_terms() -> None:
    trials = grid(OF_SEED, additive, inner_steps=OF_STEPS, cg_steps=OF_CG)
    seeds, interval = statistics.fmean(OF_SEED.values()), half_width(OF_SEED.values())
    terms = [("inner_steps", OF_STEPS, OF_CG), ("cg_steps", OF_CG, OF_STEPS)]
    expected = [
        (name, level, value + statistics.fmean(others.values()) + seeds)
        for name, own, others in terms
        for level, value in own.items()
    ]
    effects = main_effects(trials, QUALITY)
    assert [(effect.dimension, effect.level) for effect in effects] == [e[:2] for e in expected]
    for effect, (_, _, mean) in zip(effects, expected, strict=True):
        assert effect.mean == pytest.approx(mean)
        assert effect.interval == pytest.approx(interval)
        assert (effect.seeds, effect.left_out) == (3, 0)


def test_a_seed_that_lacks_a_cell_is_excluded() -> None:
    trials = grid(OF_SEED, additive, inner_steps=OF_STEPS, cg_steps=OF_CG)
    seed_1_lost = without_value(trials, {"inner_steps": 20, "cg_steps": 2}, {1})
    of_others = [one for one in trials if one.config.seed != 1]
    assert main_effects(seed_1_lost, QUALITY) == tuple(
        dataclasses.replace(effect, left_out=1) for effect in main_effects(of_others, QUALITY)
    )
    missing = [one for one in trials if (one.config.seed, one.config.learner.cg_steps) != (1, 2)]
    assert main_effects(missing, QUALITY) == main_effects(seed_1_lost, QUALITY)


def test_levels_are_compared_by_paired_differences() -> None:
    trials = grid(OF_SEED, additive, inner_steps=OF_STEPS, cg_steps=OF_CG)
    low, *_, high = main_effects(trials, QUALITY)[: len(OF_STEPS)]
    first, *_, last = OF_STEPS.values()
    # An effect of a seed on all levels is in the interval of each, but not in the difference's.
    assert difference(high, low) == (pytest.approx(last - first), pytest.approx(0, abs=1e-12))


def test_a_cell_without_grid_trials_is_missing_for_every_seed() -> None:
    trials = grid(OF_SEED, additive, inner_steps=OF_STEPS, cg_steps=OF_CG)
    level = (20, 2)
    there = [
        t for t in trials if (t.config.learner.inner_steps, t.config.learner.cg_steps) == level
    ]
    tried = [dataclasses.replace(lost(one), stage="tune") for one in there[:2]]
    rest = [one for one in trials if one not in there]
    effects = main_effects([*tried, *rest], QUALITY, tuned=["inner_lr"])
    assert {(effect.mean, effect.seeds, effect.left_out) for effect in effects} == {(None, 0, 3)}
    (table,) = cells_table([*tried, *rest], QUALITY, nuisances=["inner_lr"])
    found = table.cells[table.rows.index(20)][table.columns.index(2)]
    assert (found.mean, found.statuses) == (None, {"diverged": 2})
    complete = [dataclasses.replace(there[0], stage="tune"), *tried]
    (table,) = cells_table([*complete, *rest], QUALITY, nuisances=["inner_lr"])
    assert table.cells[table.rows.index(20)][table.columns.index(2)].statuses == {}


def test_tuned_fields_are_not_dimensions() -> None:
    trials = grid(OF_SEED, additive, inner_steps=OF_STEPS, cg_steps=OF_CG)
    tuned = [
        trial(
            "grid",
            one.index,
            one.value,
            seed=one.config.seed,
            data=WAVES,
            learner={
                **one.config.learner.model_dump(),
                "inner_lr": 1 / one.config.learner.inner_steps,
            },
        )
        for one in trials
    ]
    assert main_effects(tuned, QUALITY, tuned=["inner_lr"]) == main_effects(trials, QUALITY)
    (table,) = cells_table(tuned, QUALITY, nuisances=["inner_lr"])
    assert [row[0].chosen for row in table.cells] == [{"inner_lr": 1 / k} for k in table.rows]


def test_one_seed_has_no_interval_and_no_seed_no_mean() -> None:
    trials = grid([0, 1], additive, inner_steps=OF_STEPS, cg_steps=OF_CG)
    one = main_effects(without_value(trials, {"inner_steps": 20}, {1}), QUALITY)
    assert one[0] == Effect("inner_steps", 1, one[0].mean, None, 1, 1, by_seed=(one[0].mean,))
    assert one[0].mean == pytest.approx(0.125)
    none = main_effects(without_value(trials, {"inner_steps": 20}, {0, 1}), QUALITY)
    assert none[0] == Effect("inner_steps", 1, None, None, seeds=0, left_out=2)
    assert len(none) == 5


def test_memory_and_accuracy_are_in_their_units() -> None:
    trials = [
        trial("grid", index, 0.5, learner={"inner_steps": k}, peak_memory_bytes=100 * k * MIB)
        for index, k in enumerate((1, 5))
    ]
    assert [effect.mean for effect in main_effects(trials, PEAK_MEMORY)] == [100, 500]
    assert [effect.mean for effect in main_effects(trials, quality(ACCURACY))] == [50, 50]


def test_dimensions_are_averaged_where_they_apply() -> None:
    learners: list[dict[str, Any]] = [
        {"algorithm": "memory_reduced", "cg_steps": 2},
        {"algorithm": "memory_reduced", "cg_steps": 10},
        {"algorithm": "anil"},
    ]
    trials = [trial("grid", n, 0.1 * n, learner=learner) for n, learner in enumerate(learners)]
    assert varying(trials) == {"algorithm": ("memory_reduced", "anil"), "cg_steps": (2, 10)}
    means = {(e.dimension, e.level): e.mean for e in main_effects(trials, quality(ACCURACY))}
    assert means == {
        ("algorithm", "memory_reduced"): pytest.approx(5),
        ("algorithm", "anil"): pytest.approx(20),
        ("cg_steps", 2): pytest.approx(0),
        ("cg_steps", 10): pytest.approx(10),
    }


def test_none_is_a_level_of_chunk() -> None:
    trials = [trial("grid", n, 0.5, learner={"chunk": c}) for n, c in enumerate((50, None, 25))]
    assert varying(trials) == {"chunk": (None, 25, 50)}


@pytest.mark.thorough
def test_intervals_of_effects_have_nominal_coverage() -> None:
    # A seed affects all cells: an interval over all trials would be far too narrow.
    rng = np.random.default_rng(0)
    made = grid(range(4), lambda learner, _: learner["inner_steps"], inner_steps=(1, 5, 20))
    covered = []
    for _ in range(2000):
        shifts = rng.normal(size=4)
        trials = [
            dataclasses.replace(one, value=one.value + shifts[one.config.seed] + rng.normal() / 2)
            for one in made
            if one.value is not None
        ]
        effect = main_effects(trials, QUALITY)[0]
        assert effect.mean is not None
        assert effect.interval is not None
        covered.append(abs(effect.mean - 1) <= effect.interval)
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.thorough
def test_intervals_of_cells_have_nominal_coverage() -> None:
    rng = np.random.default_rng(0)
    # Each cell is a separate replicate.
    trials = grid(range(3), lambda *_: rng.normal(2.0), outer_lr=[0.01], task_batch=range(1, 2001))
    (table,) = cells_table(trials, QUALITY, rows="task_batch")
    cells = [row[0] for row in table.cells]
    assert len(cells) == 2000
    covered = [
        abs(cell.mean - 2) <= cell.interval
        for cell in cells
        if cell.mean is not None and cell.interval is not None
    ]
    assert len(covered) == 2000
    assert 0.93 <= np.mean(covered) <= 0.97


STEPS, CG, INNER, OUTER = (1, 5), (2, 10, 20), (0.1, 1.0), (0.001, 0.01)

grids = st.lists(
    st.integers(0, 99), min_size=2 * 3 * 2 * 2 * 2, max_size=2 * 3 * 2 * 2 * 2, unique=True
)


@given(values=grids, classification=st.booleans())
def test_each_cell_uses_its_best_nuisance_setting(values: list[int], classification: bool) -> None:
    array = np.array(values).reshape(2, 3, 4, 2)
    names = ("inner_steps", "cg_steps", "inner_lr", "outer_lr")
    data, backbone = (DATA, "conv4") if classification else (WAVES, "mlp")
    settings = list(itertools.product(STEPS, CG, INNER, OUTER))
    trials = [
        trial(
            "grid",
            index,
            value / 100,
            seed=index % 2,
            data=data,
            learner=dict(zip(names, settings[index // 2], strict=True)) | {"backbone": backbone},
            peak_memory_bytes=(index + 1) * MIB,
        )
        for index, value in enumerate(values)
    ]
    response = quality(data.metric)
    (table,) = cells_table(trials, response)
    (memory,) = cells_table(trials, PEAK_MEMORY)
    assert (table.at, table.rows, table.columns) == ({}, STEPS, CG)
    nuisances = list(itertools.product(INNER, OUTER))
    sums = array.sum(axis=3)
    for row, column in itertools.product(range(2), range(3)):
        own, cell = sums[row, column], table.cells[row][column]
        best = own.max() if classification else own.min()
        inner, outer = cell.chosen["inner_lr"], cell.chosen["outer_lr"]
        place = nuisances.index((inner, outer))
        assert own[place] == best
        scale = 1 if classification else 100
        pair = array[row, column, place] / scale
        assert cell.mean == pytest.approx(pair.mean())
        assert cell.interval == pytest.approx(half_width(pair))
        assert (cell.seeds, cell.statuses) == (2, {"complete": 8})
        index = 2 * (4 * (3 * row + column) + place)
        assert memory.cells[row][column].mean == pytest.approx(index + 1.5)
        assert memory.cells[row][column].chosen == cell.chosen


def test_other_dimensions_have_separate_tables() -> None:
    learners: list[dict[str, Any]] = [
        {"algorithm": "memory_reduced", "inner_steps": k, "cg_steps": n}
        for k, n in itertools.product((5, 1), (2, 10))
    ]
    learners += [{"algorithm": "anil", "inner_steps": k} for k in (5, 1)]
    trials = [trial("grid", n, 0.1 * n, learner=learner) for n, learner in enumerate(learners)]
    first, second = cells_table(trials, quality(ACCURACY))
    assert (first.at, first.rows, first.columns) == (
        {"algorithm": "memory_reduced"},
        (1, 5),
        (2, 10),
    )
    assert (second.at, second.rows, second.columns) == ({"algorithm": "anil"}, (1, 5), (None,))
    means = [[cell.mean for cell in row] for row in (*first.cells, *second.cells)]
    assert means == [
        [pytest.approx(value) for value in row] for row in ([20, 30], [0, 10], [50], [40])
    ]


def test_a_grid_without_both_dimensions_is_one_cell() -> None:
    trials = grid([0, 1], lambda learner, seed: learner["inner_lr"] + seed, inner_lr=(0.5, 0.25))
    (table,) = cells_table(trials, QUALITY)
    cell = Cell(0.75, table.cells[0][0].interval, 2, {"inner_lr": 0.25}, {"complete": 4})
    assert table == CellsTable({}, (None,), (None,), ((cell,),))
    assert cell.interval == pytest.approx(half_width([0, 1]))


def test_no_inner_step_size_is_chosen_without_inner_steps() -> None:
    trials = grid(
        [0], lambda learner, _: learner["inner_lr"], inner_steps=(1,), inner_lr=(0.5, 0.1)
    )
    trials.append(trial("grid", 2, 0.3, data=WAVES, learner={"backbone": "mlp", "inner_steps": 0}))
    (table,) = cells_table(trials, QUALITY)
    assert table.rows == (0, 1)
    assert [row[0].chosen for row in table.cells] == [{}, {"inner_lr": 0.1}]
    assert [row[0].mean for row in table.cells] == [0.3, 0.1]


def test_a_setting_that_diverges_with_some_seeds_is_not_selected() -> None:
    trials = grid([0, 1, 2], lambda learner, _: learner["inner_lr"], inner_lr=(0.5, 0.1))
    (table,) = cells_table(without_value(trials, {"inner_lr": 0.1}, {1}), QUALITY)
    (cell,) = table.cells[0]
    assert (cell.chosen, cell.mean, cell.seeds) == ({"inner_lr": 0.5}, 0.5, 3)
    assert cell.statuses == {"complete": 5, "diverged": 1}


def test_a_cell_without_complete_trials_has_their_statuses() -> None:
    trials = grid([0, 1], additive, inner_steps=OF_STEPS, cg_steps=OF_CG)
    trials = without_value(trials, {"inner_steps": 20, "cg_steps": 10}, {0, 1})
    for response in (QUALITY, PEAK_MEMORY, STEP_TIME):
        (table,) = cells_table(trials, response)
        assert table.cells[2][1] == Cell(None, None, 0, {}, {"diverged": 2})
        assert table.cells[2][0].seeds == 2


def test_a_cell_without_trials_is_empty() -> None:
    trials = grid([0], additive, inner_steps=OF_STEPS, cg_steps=OF_CG)
    (table,) = cells_table(trials[1:], QUALITY)
    assert table.cells[0][0] == Cell(None, None, 0, {}, {})
    assert table.cells[0][1].interval is None
