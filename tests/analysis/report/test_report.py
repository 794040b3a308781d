"""The report of simulated sweeps with various stages and results."""

import csv
import dataclasses
from pathlib import Path

import pytest

from analysis.records.trial_table import read_trials
from analysis.records.trials import Sweep
from analysis.report.build import write_report
from analysis.report.page import Page
from analysis.report.sections import search, sensitivity
from memmeta.config import DataConfig
from memmeta.errors import InputError
from tests.analysis.made_up import sweep, trial
from tests.analysis.report.helpers import (
    SPACE,
    build,
    measured,
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
        assert float(row[2]) <= float(row[0].removesuffix(" MiB"))


def test_constant_memory_does_not_grow(page: Page) -> None:
    memory = section(page, "Memory against K")
    assert "does not grow from K = 1 to 20" in memory.finding
    (found,) = tables(memory)
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert row["90 % interval"] == "0.0% to 0.0%"


def test_heads_are_distinguished_in_the_figure_of_memory() -> None:
    of = sweep([
        trial("grid", n, 0.5, learner={"inner_steps": k, "head": head})
        for n, (k, head) in enumerate((k, head) for k in (1, 5) for head in ("linear", "mlp"))
    ])  # fmt: skip
    (figure,) = (figure for figure in build(of).figures if figure.name == "memory_against_k")
    named = [text.get_text() for text in figure.drawing.legends[0].get_texts()]
    assert named == ["memory_reduced, linear head", "memory_reduced, mlp head"]


def test_a_single_config_on_the_front_is_best_in_both_objectives() -> None:
    trials = [trial("search", 0, 0.5), trial("search", 1, 0.6, peak_memory_bytes=None)]
    for some, said in (
        (trials[:1], "One config is best in both objectives: 50.00%"),
        (
            trials,
            "One config, of those with a measured peak memory, is best in both objectives: 50.00%",
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
    with pytest.raises(InputError, match="--within nonsense"):
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
