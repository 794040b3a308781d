"""The section on the grid."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from analysis.records.trial_table import read_trials
from analysis.records.trials import Sweep
from analysis.report.build import write_report
from analysis.report.page import Page
from tests.analysis.made_up import MIB, sweep, trial
from tests.analysis.report.helpers import build, names, section, tables, words


def cells_of(peaks: Mapping[int, float]) -> Sweep:
    """A grid of inner steps with these peaks in MiB; the second seed has 300 MiB more."""
    return sweep([
        trial("grid", len(peaks) * seed + n, 0.5, seed=seed, learner={"inner_steps": k},
              peak_memory_bytes=int(peak + 300 * seed) * MIB)
        for seed in range(2) for n, (k, peak) in enumerate(peaks.items())
    ])  # fmt: skip


def test_large_peaks_in_a_table_of_cells_have_no_exponents() -> None:
    memory = tables(section(build(cells_of({1: 12_000, 5: 20_000})), "Grid"))[1]
    # 150, half of the difference, times 12.706, Student's t with one degree of freedom.
    assert memory.rows[0][1] == "12150 ± 1906"


def test_cells_that_differ_by_less_than_one_per_cent_are_said_in_words() -> None:
    page = build(cells_of({1: 12_000, 5: 12_050}))
    found = section(page, "Grid")
    assert [table.title for table in tables(found)] == ["Validation accuracy (%)"]
    said = words(found)
    assert "Peak memory (MiB): 12150.0 to 12200.0 MiB in all 2 cells with a result." in said
    assert "Peak memory, averaged over the other dimensions: 12150.0 to 12200.0 MiB over" in said
    hidden = {"cells_memory", "cells_time", "grid_memory_inner_steps", "grid_time_inner_steps"}
    assert hidden <= set(names(page.in_words))
    assert not hidden & set(names(page.figures))


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
    assert "inner_lr has the largest effect on accuracy: it is 10.0 ± " in grid.finding
    assert "points higher at 1 than at 0.1 (95 % interval over 2 seeds;" in grid.finding
    quality = tables(grid)[0]
    assert [row[0] for row in quality.rows] == ["K = 1", "K = 5", "K = 20"]
    assert "In all cells: inner_lr 1." in grid.blocks


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
    quality, chosen = tables(grid)
    assert quality.rows[0] == ["K = 1", "60.0 ± 0.6"]
    assert chosen.title == "Selected inner_lr of each cell"
    assert chosen.rows == [["K = 1", "1"], ["K = 5", "0.3"], ["K = 20", "0.1"]]
    # With one line, the figure would repeat the main effect.
    assert "grid_accuracy_inner_steps" in names(found.figures)
    assert "cells_accuracy" in names(found.in_words)
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
              learner={"inner_steps": k, "filters": width, **learner},
              peak_memory_bytes=(100 + 10 * index) * MIB, seconds_per_step=0.1 * (1 + index))
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
        ["K = 1", "50.0", "51.0", "–"],
        ["K = 5", "52.0", "53.0", "54.0"],
        ["K = 20", "–", "–", "55.0"],
    ]
    assert "One training seed" in quality.note
    assert "(from one seed: no interval" in grid.finding
    assert "step sizes" not in quality.note


def test_wide_tables_are_split() -> None:
    found = tables(section(build(algorithms_sweep(8, 16, 32)), "Grid"))
    assert len(found) == 3 * 6
    assert found[0].columns == ["K", "N = 1", "N = 20"]
    assert "memory_reduced, filters 8" in found[0].title
