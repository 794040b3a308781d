"""Simulated sweeps for reports, and access to the content of a report."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from analysis.records.trials import Sweep, Trial
from analysis.report.build import build_report
from analysis.report.page import Figure, Gallery, Heading, InWords, Page, Section, Table
from analysis.statistics.region import Region
from memmeta.config import DataConfig
from sweeps.engine.study.outcome import Stage
from tests.analysis.made_up import MIB, sweep, trial

SPACE = {
    "inner_lr": {"low": 0.03, "high": 3.0, "log": True},
    "inner_steps": {"low": 1, "high": 40, "log": True},
    "task_batch": {"low": 2, "high": 32, "log": True},
}


def measured(
    stage: Stage,
    index: int,
    *,
    seed: int = 0,
    data: DataConfig | None = None,
    noise: float = 0.0,
    **learner: Any,
) -> Trial:
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


def only(*stages: str) -> Sweep:
    of = whole_sweep()
    return dataclasses.replace(of, trials=of.trials_in(*stages))


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


def build(of: Sweep, region: Region | None = None) -> Page:
    command = "memmeta report"
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
        elif isinstance(block, Heading | InWords):
            said.append(block.text)
        elif isinstance(block, Gallery):
            said.append(block.caption)
        else:
            said += [block.title, block.note, *block.columns]
            said += [cell for row in block.rows for cell in row]
    return "\n".join(said)


def tables(section: Section) -> list[Table]:
    return [block for block in section.blocks if isinstance(block, Table)]


def names(found: Iterable[Figure]) -> list[str]:
    return [figure.name for figure in found]
