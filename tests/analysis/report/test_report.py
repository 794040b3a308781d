"""The report of simulated sweeps with various stages and results."""

import csv
import dataclasses
from pathlib import Path

import pytest

from analysis.records.trial_table import read_trials
from analysis.records.trials import Sweep
from analysis.report.build import write_report
from analysis.report.page import Page, Table
from analysis.report.sections import (
    confirmed,
    grid,
    memory_growth,
    search,
    sensitivity,
    trade_off,
    what_was_run,
)
from memmeta.config import DataConfig
from memmeta.errors import InputError
from tests import ROOT
from tests.analysis.made_up import MIB, sweep, trial
from tests.analysis.report.helpers import (
    SPACE,
    build,
    measured,
    names,
    of_two_algorithms,
    only,
    section,
    tables,
    whole_sweep,
    words,
)


def test_a_sweep_of_all_stages_has_all_sections(page: Page) -> None:
    assert [section.title for section in page.sections] == [
        "What was run",
        "Sensitivity",
        "Grid",
        "Memory against K",
        "Quality against memory",
        "Search",
        "Confirmed results",
    ]
    assert all(section.finding for section in page.sections)
    names = [figure.name for figure in page.figures]
    assert len(names) == len(set(names))


def test_statuses_are_counted(page: Page) -> None:
    stages, space, trials = tables(section(page, "What was run"))
    assert list(stages.columns[:6]) == [
        "stage", "trials", "complete", "pruned", "diverged", "out of memory",
    ]  # fmt: skip
    counts = {row[0]: list(row[1:6]) for row in stages.rows}
    assert counts == {
        "explore": ["34", "32", "0", "1", "1"],
        "search": ["9", "8", "1", "0", "0"],
        "confirm": ["3", "3", "0", "0", "0"],
        "grid": ["12", "12", "0", "0", "0"],
    }
    assert [row[0] for row in space.rows] == list(SPACE)
    assert len(trials.rows) == 58


def test_ways_in_training_are_stated_if_different() -> None:
    learner = {"inner_lr": 1.0, "inner_steps": 5, "task_batch": 2}
    shapes = DataConfig(), DataConfig(train_ways=9)
    trials = (measured("explore", 0, data=shape, **learner) for shape in shapes)
    same, other = (words(section(build(sweep([t], SPACE)), "What was run")) for t in trials)
    assert "glyphs, 5-way 5-shot, 5 queries per class in training" in same
    assert "glyphs, 5-way 5-shot, trained 9-way, 5 queries per class in training" in other


def test_the_best_trials_are_within_their_budgets(page: Page) -> None:
    (budgets,) = tables(section(page, "Quality against memory"))
    for row in budgets.rows:
        assert float(row[2]) <= float(row[0].partition(" to ")[0])
    assert len(budgets.rows) == len({row[3] for row in budgets.rows})  # one row for each trial


def test_constant_memory_does_not_grow(page: Page) -> None:
    memory = section(page, "Memory against K")
    assert "does not grow from K = 1 to 20" in memory.finding
    (found,) = tables(memory)
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert row["90 % interval"] == "0.0% to 0.0%"


def test_heads_are_distinguished_in_the_figure_of_memory() -> None:
    of = sweep([
        trial("grid", n, 0.5, learner={"inner_steps": k, "head": head},
              peak_memory_bytes=(100 + 10 * k) * MIB)
        for n, (k, head) in enumerate((k, head) for k in (1, 5) for head in ("linear", "mlp"))
    ])  # fmt: skip
    (figure,) = (figure for figure in build(of).figures if figure.name == "memory_against_k")
    named = [text.get_text() for text in figure.drawing.legends[0].get_texts()]
    assert named == ["memory_reduced, linear head", "memory_reduced, mlp head"]


def test_a_single_config_on_the_front_is_best_in_both_objectives() -> None:
    trials = [trial("search", 0, 0.5), trial("search", 1, 0.6, peak_memory_bytes=None)]
    for some, said in (
        (trials[:1], "One config is best in both objectives: 50.0 %"),
        (
            trials,
            "One config, of those with a measured peak memory, is best in both objectives: 50.0 %",
        ),
    ):
        finding = section(build(sweep(some)), "Quality against memory").finding
        assert finding.startswith(said)


def test_a_report_redrawn_from_its_trials_is_identical(written: Path, tmp_path: Path) -> None:
    again = read_trials(written / "trials.csv")
    write_report(build(again), again, tmp_path)
    for path in written.rglob("*.*"):
        assert (tmp_path / path.relative_to(written)).read_bytes() == path.read_bytes()


def test_plotted_points_are_in_the_data(written: Path) -> None:
    with (written / "data" / "pareto.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [trial.run_name for trial in whole_sweep().ranking]


def test_sensitivity_can_be_limited_to_a_region() -> None:
    of = only("explore")
    inside = [t for t in of.trials if t.config.learner.inner_lr <= 1.0]
    found = sensitivity.section(of, {"inner_lr": (0.03, 1.0)})
    assert found
    counted = f"Within inner_lr 0.03 to 1 ({len(inside)} of {len(of.trials)} trials"
    assert found.finding.startswith(f"{counted} of stage explore): validation accuracy")
    part = dataclasses.replace(
        of, trials=tuple(inside), settings={"explore": {"space": {**SPACE, "inner_lr":
            {"low": 0.03, "high": 1.0, "log": True}}}}
    )  # fmt: skip
    alone = sensitivity.section(part, {})
    assert alone
    assert tables(found) == tables(alone)
    assert alone.finding.lower() in found.finding.lower()


def test_random_search_is_explained_if_it_is_estimated() -> None:
    for stages, known in ((["explore", "search"], True), (["search"], False)):
        found = search.section(only(*stages))
        assert found
        assert ("a random search over the same space" in words(found)) == known


def test_alternative_texts_mention_random_search_if_it_is_drawn() -> None:
    for stages, drawn in ((["explore", "search"], True), (["search"], False)):
        found = search.section(only(*stages))
        assert found
        alts = [figure.alt for figure in Page("", "", [found], "").figures]
        assert len(alts) == 2
        assert all(("random search" in alt) == drawn for alt in alts)


def test_boundaries_are_reported_for_spaces_with_ranges() -> None:
    inside = trial("search", 0, 0.5, learner={"inner_lr": 0.3, "inner_steps": 1})
    ranges = {name: SPACE[name] for name in ("inner_lr", "inner_steps")}
    # K = 1 is at the lower end of its range, and the learner accepts K = 0.
    found = words(section(build(sweep([inside], {"inner_lr": SPACE["inner_lr"]})), "Search"))
    assert "not near any boundary of the space" in found
    assert "inner_steps 1 is at the lower end" in words(
        section(build(sweep([inside], ranges)), "Search")
    )
    choices = words(section(build(sweep([inside], {"norm": ["batch", "group"]})), "Search"))
    assert "boundary" not in choices


def test_the_method_describes_only_what_was_done() -> None:
    def said(of: Sweep) -> str:
        found = sensitivity.section(of, {})
        assert found
        return words(found)

    fitted = said(only("explore"))
    assert "how far a loop moves (inner_lr times inner_steps) is fitted" in fitted
    assert "Trials of explore without a validation accuracy: 1 diverged, 1 out of memory." in fitted
    assert "whole space" not in fitted
    no_distance = said(of_two_algorithms(lost="memory_reduced"))
    assert "as a function of the dimensions is fitted" in no_distance
    too_few = said(sweep([trial("explore", 0, 0.5)], SPACE))
    assert "fitted" not in too_few


def test_an_invalid_region_is_refused_without_explore() -> None:
    with pytest.raises(InputError, match="within nonsense"):
        build(only("search"), region={"nonsense": (1.0, 2.0)})


@pytest.mark.thorough
@pytest.mark.parametrize(
    "of",
    [
        only("search"),
        only("grid"),
        only("confirm"),
        sweep([trial("explore", 0, 0.5)], SPACE),
        sweep([trial("explore", 0, None, status="diverged")], SPACE),
        sweep([trial("explore", 0, None, status="running")], SPACE),
        sweep([trial("search", 0, 0.5, peak_memory_bytes=None, seconds_per_step=None)], SPACE),
        sweep([trial("confirm", 0, 0.5, test_value=0.5, test_interval=0.1)], SPACE),
        sweep([trial("explore", n, 0.5, hardware=None, commit=None, threads=None, seconds=None)
               for n in range(11)], SPACE),
        sweep([trial("explore", n, 3.0 + n, data=DataConfig(name="sinusoid", ways=1),
                     learner={"backbone": "mlp", "inner_lr": 0.1 * (n + 1)}) for n in range(11)],
              {"inner_lr": SPACE["inner_lr"]}),
        sweep([trial("explore", n, 0.5 + 0.01 * n, gpus=0.25) for n in range(3)]),
        of_two_algorithms(lost="memory_reduced"),
    ],
)  # fmt: skip
def test_incomplete_sweeps_have_a_report(of: Sweep, tmp_path: Path) -> None:
    found = build(of)
    write_report(found, of, tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 5000
    assert not any(
        "None" in words(section) or "nan" in words(section) for section in found.sections
    )


def test_a_sweep_without_trials_is_refused() -> None:
    with pytest.raises(InputError, match="has no trials"):
        build(sweep([]))


WIDEST = 102
"""Characters of a table beside the contents at 1,200 pixels, in a font with wide digits."""


def committed(name: str) -> list[Table]:
    """The tables of a sweep of docs/results, except those of its sensitivity, which takes long."""
    sections = (what_was_run, grid, memory_growth, search, confirmed)
    of = read_trials(ROOT / "docs" / "results" / f"{name}.csv")
    found = [part.section(of) for part in sections] + [trade_off.section(of, 2**30)]
    return [table for part in found if part for table in tables(part)]


@pytest.mark.parametrize("name", ["k_by_n_cifar_fs", "inner_loop_cost", "best_cifar_fs"])
def test_no_table_of_the_documentation_is_cut_off(name: str) -> None:
    for table in committed(name):
        assert table.folded or table.width <= WIDEST, table.title


def test_no_table_is_cut_off(page: Page) -> None:
    for part in page.sections:
        for table in tables(part):
            assert table.folded or table.width <= WIDEST, table.title


def test_verdicts_come_first(page: Page) -> None:
    growth, results = (
        tables(section(page, title))[0] for title in ("Memory against K", "Confirmed results")
    )
    assert list(growth.columns[:2]) == ["algorithm", "verdict"]
    assert list(results.columns[:3]) == ["config", "test accuracy %", "validation accuracy %"]


def test_dimensions_without_an_effect_are_not_drawn(page: Page) -> None:
    # Memory depends on the task batch alone, accuracy on the inner loop alone.
    drawn, hidden = names(page.figures), names(page.in_words)
    assert "effect_memory_task_batch" in drawn
    assert {"effect_memory_inner_lr", "effect_memory_inner_steps", "sobol_memory"} <= set(hidden)
    assert "map_memory_inner_lr_inner_steps" in hidden
    assert {"sobol_accuracy", "map_accuracy_inner_lr_inner_steps"} <= set(drawn)
    assert "effect_accuracy_task_batch" in hidden
    said = words(section(page, "Sensitivity"))
    assert "Not drawn, because peak memory hardly changes: the Sobol indices" in said


def test_peaks_that_are_constant_in_k_are_said_in_words(page: Page) -> None:
    found = section(page, "Memory against K")
    assert "from K = 1 to 20: 40.0 MiB (memory_reduced, linear head)" in words(found)
    assert "memory_against_k" in names(page.in_words)


def test_algorithms_with_the_same_growth_share_a_sentence() -> None:
    of = sweep([
        trial("grid", n, 0.5, learner={"inner_steps": k, "algorithm": algorithm})
        for n, (k, algorithm) in enumerate((k, a) for k in (1, 5, 9) for a in ("anil", "itd_bio"))
    ])  # fmt: skip
    finding = section(build(of), "Memory against K").finding
    assert finding == (
        "anil cached, linear head; itd_bio cached, linear head: does not grow from K = 1 to 9 "
        "(0.0%)."
    )


def test_a_stage_that_is_too_small_has_one_sentence() -> None:
    trials = [trial("explore", n, 0.5 + 0.1 * n) for n in range(2)]
    page = build(sweep([*trials, trial("explore", 2, None, status="diverged")], SPACE))
    found = section(page, "Sensitivity")
    assert found.finding == (
        "Too few trials for sensitivity: stage explore has results of 1 config and needs at least "
        "10 (trials: 2 complete, 1 diverged). Run the sweep with more trials."
    )
    assert not found.blocks
    assert "No figure is drawn of fewer than 3 different results." in words(
        section(page, "Quality against memory")
    )


def test_equal_results_are_not_drawn_as_a_front() -> None:
    page = build(sweep([trial("search", n, 0.5) for n in range(5)]))
    assert "pareto" in names(page.in_words)


def test_a_search_that_never_improves_is_said_in_words() -> None:
    page = build(sweep([trial("search", n, 0.6 - 0.1 * n) for n in range(4)]))
    assert "was not improved upon" in words(section(page, "Search"))
    assert {"best_by_trials", "best_by_hours"} <= set(names(page.in_words))
