"""The report of simulated sweeps with various stages and results."""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from analysis.records.trial_table import read_trials
from analysis.records.trials import Sweep, Trial
from analysis.report.build import build_report, write_report
from analysis.report.page import Gallery, Heading, Page, Section, Table
from analysis.report.sections import search, sensitivity
from analysis.statistics import averages, cross_validation, posterior, sobol
from analysis.statistics.region import Region
from memmeta.config import DataConfig
from memmeta.errors import InputError
from tests.analysis.made_up import MIB, sweep, trial

SPACE = {
    "inner_lr": {"low": 0.03, "high": 3.0, "log": True},
    "inner_steps": {"low": 1, "high": 40, "log": True},
    "task_batch": {"low": 2, "high": 32, "log": True},
}


def measured(stage, index, seed=0, data=None, noise=0.0, **learner) -> Trial:
    """A trial whose results are a function of its settings, plus `noise`."""
    value = 0.5 + 0.1 * np.log10(learner["inner_lr"]) + 0.05 * np.log10(learner["inner_steps"])
    facts = {
        "peak_memory_bytes": 10 * MIB * learner["task_batch"],
        "seconds_per_step": 0.01 * learner["task_batch"],
    }
    if stage == "confirm":
        facts |= {"test_value": value - 0.05 + noise, "test_interval": 0.01}
    extra = {"data": data} if data else {}
    return trial(stage, index, value + noise, seed=seed, learner=learner, **extra, **facts)


def point(rng: np.random.Generator) -> dict[str, object]:
    return {
        "inner_lr": float(0.03 * 100 ** rng.random()),
        "inner_steps": round(40 ** rng.random()),
        "task_batch": round(2 * 16 ** rng.random()),
    }


def whole_sweep() -> Sweep:
    """A sweep with all stages and all final statuses."""
    rng = np.random.default_rng(0)
    trials = [measured("explore", index, **point(rng)) for index in range(32)]
    trials.append(trial("explore", 32, None, status="diverged", message="loss is nan"))
    trials.append(trial("explore", 33, None, status="out_of_memory", message="45 GiB"))
    trials += [measured("search", index, **point(rng)) for index in range(8)]
    trials.append(trial("search", 8, 0.3, status="pruned"))
    best = max(trials, key=lambda t: t.value or 0).config.learner
    chosen = {name: getattr(best, name) for name in SPACE}
    noises = (-0.02, 0.0, 0.01)
    trials += [
        measured("confirm", n, seed=n + 1, noise=noise, **chosen) for n, noise in enumerate(noises)
    ]
    cells = [(k, lr) for k in (1, 5, 20) for lr in (0.1, 1.0)]
    trials += [
        measured("grid", 6 * seed + n, seed=seed, noise=0.01 * seed, task_batch=4,
                 inner_steps=k, inner_lr=lr)
        for seed in range(2)
        for n, (k, lr) in enumerate(cells)
    ]  # fmt: skip
    return sweep(trials, SPACE)


def build(of: Sweep, region: Region | None = None) -> Page:
    command = "python -m analysis report"
    return build_report(of, 1024 * MIB, command, region or {})


def section(page: Page, title: str) -> Section:
    (found,) = (section for section in page.sections if section.title == title)
    return found


def words(section: Section) -> str:
    """The text of a section, without figures."""
    said = [section.finding]
    for block in section.blocks:
        if isinstance(block, str):
            said.append(block)
        elif isinstance(block, Heading):
            said.append(block.text)
        elif isinstance(block, Gallery):
            said.append(block.caption)
        else:
            said += [block.caption, *block.columns, *(c for row in block.rows for c in row)]
    return "\n".join(said)


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


@pytest.fixture(scope="module", autouse=True)
def coarse() -> Iterator[None]:
    """Evaluate surrogates at fewer points and kernels, which is faster and otherwise the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sobol, "_POINTS", 256)
        patch.setattr(sobol, "_POINTS_OF_DRAWS", 256)
        patch.setattr(averages, "_CURVE_VALUES", 9)
        patch.setattr(averages, "_MAP_VALUES", 7)
        patch.setattr(cross_validation, "_FOLDS", 4)
        patch.setattr(cross_validation, "_SHUFFLES", 2)
        patch.setattr(posterior, "_KERNELS", 12)
        yield


@pytest.fixture(scope="module")
def page() -> Page:
    return build(whole_sweep())


@pytest.fixture(scope="module")
def written(page: Page, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the written report."""
    folder = tmp_path_factory.mktemp("report")
    write_report(page, whole_sweep(), folder)
    return folder


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


def test_intervals_over_seeds_and_tasks_are_separate(page: Page) -> None:
    confirmed = section(page, "Confirmed results")
    (found,) = tables(confirmed)
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert row["fresh seeds"] == "3"
    assert row["test, over tasks"] == "± 1.0 %"
    # The mean of the three noise values is -1/3 of a point and their standard deviation 1.5275
    # points, which gives a half-width of 3.795 by Student's t with two degrees of freedom.
    assert row["selection bias"] == "0.3 points"
    assert row["validation, over seeds"].endswith("± 3.8 %")


def confirming(single: float, *seeds: tuple[int, int]) -> str:
    """The finding for configs (inner steps, number of fresh seeds); every fresh seed gives 0.5."""
    trials = [trial("search", k, single, learner={"inner_steps": k}) for k, _ in seeds]
    trials += [
        trial("confirm", 10 * k + seed, 0.5, seed=seed, learner={"inner_steps": k},
              test_value=0.4, test_interval=0.01)
        for k, count in seeds for seed in range(1, count + 1)
    ]  # fmt: skip
    return section(build(sweep(trials)), "Confirmed results").finding


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([(1, 2)], "on validation tasks. A"),
        ([(1, 2), (2, 2)], "; the best validation result of 2 configs."),
        ([(1, 2), (2, 1), (3, 2)], "the 2 configs with the most seeds, of 3 configs."),
        ([(1, 2), (2, 1)], "; of 2 configs, the one with the most seeds."),
    ],
)
def test_the_best_config_is_compared_with_those_with_equally_many_seeds(
    seeds: list[tuple[int, int]], said: str
) -> None:
    assert said in confirming(0.5, *seeds)


def test_selection_bias_is_stated_with_its_sign() -> None:
    assert "A single seed overstated the validation result by 3.0 points" in confirming(
        0.53, (1, 2)
    )
    assert "A single seed understated the validation result by 3.0 points" in confirming(
        0.47, (1, 2)
    )


def test_failure_of_all_fresh_seeds_is_stated() -> None:
    lost = [trial("confirm", n, None, seed=n, status="diverged") for n in range(1, 4)]
    found = section(build(sweep([trial("search", 0, 0.5), *lost])), "Confirmed results").finding
    assert found == "No config is confirmed: no trial with a fresh seed has a result (3 diverged)."


def test_the_single_seed_is_in_the_legend() -> None:
    tested = {"test_value": 0.5, "test_interval": 0.01}
    of = sweep([
        trial("search", 0, 0.5, learner={"inner_steps": 2}),
        trial("confirm", 0, 0.6, seed=1, learner={"inner_steps": 1}, **tested),
        trial("confirm", 1, 0.5, seed=1, learner={"inner_steps": 2}, **tested),
    ])  # fmt: skip
    (figure,) = (figure for figure in build(of).figures if figure.name == "confirmed")
    (legend,) = figure.drawing.legends
    assert "validation, single seed" in [text.get_text() for text in legend.get_texts()]


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


def test_large_peaks_in_a_table_of_cells_have_no_exponents() -> None:
    of = sweep([
        trial("grid", 2 * seed + n, 0.5, seed=seed, learner={"inner_steps": k},
              peak_memory_bytes=(12_000 + 300 * seed) * MIB)
        for seed in range(2) for n, k in enumerate((1, 5))
    ])  # fmt: skip
    memory = tables(section(build(of), "Grid"))[1]
    # 150, half of the difference, times 12.706, Student's t with one degree of freedom.
    assert memory.rows[0][1] == "12150 ± 1906"


def test_the_number_of_seeds_of_a_difference_is_stated() -> None:
    cells = [
        trial("grid", 2 * seed + n, 0.5 + 0.1 * n, seed=seed, learner={"inner_steps": k})
        for seed in range(2) for n, k in enumerate((1, 5))
    ]  # fmt: skip
    lost = dataclasses.replace(cells[-1], status="diverged", value=None)
    finding = section(build(sweep([*cells[:-1], lost])), "Grid").finding
    assert "2 training seeds." in finding
    assert "(from one seed: no interval;" in finding


def test_the_grid_names_the_largest_effect(page: Page) -> None:
    grid = section(page, "Grid")
    assert "3 inner_steps × 2 inner_lr, 2 training seeds" in grid.finding
    assert "inner_lr has the largest effect on accuracy: it is 10 ± " in grid.finding
    assert "points higher at 1 than at 0.1 (95 % interval over 2 seeds;" in grid.finding
    quality = tables(grid)[0]
    assert [row[0] for row in quality.rows] == ["K = 1", "K = 5", "K = 20"]
    assert quality.rows[0][1].endswith("(inner_lr 1)")


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


def tuned_sweep() -> Sweep:
    """A grid whose cells were tuned by trials with a fifth of the budget."""
    rates = {1: 1.0, 5: 0.3, 20: 0.1}
    tried = [
        trial("tune", n, 0.6 - 0.1 * (lr != rates[k]), tasks=20,
              learner={"inner_steps": k, "inner_lr": lr})
        for n, (k, lr) in enumerate((k, lr) for k in rates for lr in rates.values())
    ]  # fmt: skip
    cells = [
        trial("grid", 3 * seed + n, 0.6 + 0.01 * n + 0.001 * seed, seed=seed + 1,
              learner={"inner_steps": k, "inner_lr": lr})
        for seed in range(2)
        for n, (k, lr) in enumerate(rates.items())
    ]  # fmt: skip
    settings = {
        "tuned": {"inner_lr": list(rates.values())},
        "tuning": {"iterations": None, "tasks": 20},
    }
    return dataclasses.replace(sweep([*tried, *cells]), settings={"grid": settings})


def test_the_tuning_of_a_grid_is_explained(tmp_path: Path) -> None:
    found = build(tuned_sweep())
    grid = section(found, "Grid")
    assert grid.finding.startswith(
        "3 inner_steps, 2 training seeds. inner_steps has the largest effect"
    )
    said = words(grid)
    assert "inner_lr from 1, 0.3, 0.1, with 9 trials of stage tune on 20 tasks each" in said
    assert "too good" not in said
    (quality, *_) = tables(grid)
    assert [row[1].rpartition(" (")[2] for row in quality.rows] == [
        "inner_lr 1)", "inner_lr 0.3)", "inner_lr 0.1)",
    ]  # fmt: skip
    assert "does not grow" in section(found, "Memory against K").finding
    first = section(found, "What was run").blocks[0]
    assert "Each trial trains on 100 tasks and is validated on 50 tasks, the same for all" in first
    assert "Each trial of stage tune trains on 20 tasks and is validated on 50 tasks." in first
    write_report(found, tuned_sweep(), tmp_path)
    write_report(build(read_trials(tmp_path / "trials.csv")), tuned_sweep(), tmp_path / "again")
    again = (tmp_path / "again" / "report.html").read_bytes()
    assert again == (tmp_path / "report.html").read_bytes()


def algorithms_sweep(*widths: int) -> Sweep:
    """K × N of Algorithm 1, and an unrolled algorithm without N, with one seed."""
    cells = [(k, {"algorithm": "memory_reduced", "cg_steps": n}) for k in (1, 5) for n in (1, 20)]
    cells += [(k, {"algorithm": "anil"}) for k in (5, 20)]
    return sweep([
        trial("grid", len(widths) * index + w, 0.5 + 0.01 * index,
              learner={"inner_steps": k, "filters": width, **learner})
        for w, width in enumerate(widths)
        for index, (k, learner) in enumerate(cells)
    ])  # fmt: skip


def test_algorithms_without_n_have_a_column() -> None:
    grid = section(build(algorithms_sweep(8)), "Grid")
    (quality, *others) = tables(grid)
    assert len(others) == 2  # memory and time
    assert quality.columns == [
        "K",
        "memory_reduced, N = 1",
        "memory_reduced, N = 20",
        "anil",
    ]
    assert quality.rows == [
        ["K = 1", "50", "51", "–"],
        ["K = 5", "52", "53", "54"],
        ["K = 20", "–", "–", "55"],
    ]
    assert "one training seed" in quality.caption
    assert "(from one seed: no interval" in grid.finding
    assert "step sizes" not in quality.caption


def test_wide_tables_are_split() -> None:
    found = tables(section(build(algorithms_sweep(8, 16, 32)), "Grid"))
    assert len(found) == 3 * 6
    assert found[0].columns == ["K", "N = 1", "N = 20"]
    assert "memory_reduced, filters 8" in found[0].caption


def of_two_algorithms(lost: str) -> Sweep:
    """An explore stage with a dimension that one algorithm lacks; trials of `lost` diverged."""
    space = {
        "algorithm": ["anil", "memory_reduced"],
        "cg_steps": {"low": 1, "high": 20},
        "task_batch": {"low": 2, "high": 32},
    }
    return sweep([
        trial("explore", n, 0.5 + 0.01 * n, status="diverged" if algorithm == lost else "complete",
              learner={"algorithm": algorithm, "cg_steps": 1 + n % 20, "task_batch": 2 + n},
              peak_memory_bytes=(2 + n) * MIB)
        for n, algorithm in enumerate(space["algorithm"] * 11)
    ], space)  # fmt: skip


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


def only(*stages: str) -> Sweep:
    of = whole_sweep()
    return dataclasses.replace(of, trials=of.trials_in(*stages))


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
