"""Confirmed results: fresh training seeds and test tasks, and the selection bias of one seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes

from analysis.formatting import points
from analysis.records.trials import RANKED, Sweep
from analysis.report import style
from analysis.report.page import Block, Figure, Gallery, InWords, Section, Table
from analysis.report.sections.what_was_run import status_counts
from analysis.statistics.confirmed import (
    ConfirmedConfig,
    confirmed_configs,
    mean_selection_bias,
    seed_deviation,
)
from analysis.statistics.responses import quality
from memmeta.metric import Metric
from memmeta.system import palette
from memmeta.system.units import short

TITLE = "Confirmed results"


def section(sweep: Sweep) -> Section | None:
    """The section; None without trials of explore, search and confirm."""
    if not sweep.trials_in(*RANKED, "confirm"):
        return None
    configs = confirmed_configs(sweep)
    if not configs:
        return Section(TITLE, _nothing_confirmed(sweep))
    blocks: list[Block] = [
        _results(sweep.metric, configs, sweep.others),
        _settings(sweep, configs),
        _seeds(sweep.metric, configs),
        *_seed_deviation_text(sweep),
    ]
    return Section(TITLE, _finding(sweep, configs), blocks)


def _nothing_confirmed(sweep: Sweep) -> str:
    trials = sweep.trials_in("confirm")
    if not trials:
        return "No config was confirmed with fresh seeds: run stage confirm of the sweep."
    return (
        "No config is confirmed: no trial with a fresh seed has a result "
        f"({status_counts(Counter(trial.status for trial in trials))})."
    )


def _finding(sweep: Sweep, configs: Sequence[ConfirmedConfig]) -> str:
    metric, best = sweep.metric, configs[0]
    one = len(best.seeds) == 1
    seeds = "one fresh seed" if one else f"{len(best.seeds)} fresh seeds (95 % interval over seeds)"
    finding = (
        f"{best.test.text(metric)} {metric.title} on test tasks over {seeds}, "
        f"{best.val.text(metric)} on validation tasks{_compared_with(configs)}"
    )
    selection_bias = mean_selection_bias(sweep)
    if selection_bias is not None:
        verb = "understated" if selection_bias < 0 else "overstated"
        amount = points(metric, abs(selection_bias))
        average = "" if len(configs) == 1 else " on average"
        finding += f". A single seed {verb} the validation result by {amount}{average}"
    return finding + "."


def _compared_with(configs: Sequence[ConfirmedConfig]) -> str:
    """The configs among which the first is the best: only those with the most seeds compare."""
    if len(configs) == 1:
        return ""
    most = sum(len(config.seeds) == len(configs[0].seeds) for config in configs)
    if most == len(configs):
        return f"; the best validation result of {most} configs"
    if most == 1:
        return f"; of {len(configs)} configs, the one with the most seeds"
    return (
        f"; the best validation result of the {most} configs with the most seeds, of "
        f"{len(configs)} configs"
    )


def _results(metric: Metric, configs: Sequence[ConfirmedConfig], others: Sequence[str]) -> Table:
    note = (
        "Means over fresh training seeds with 95 % t-intervals over these seeds. The interval over "
        "test tasks is the uncertainty of the result of one trained model due to the sampling of "
        "tasks; it does not include the variation over training seeds. Single seed is the "
        "validation result by which the config was selected. Selection bias is that result minus "
        "the mean over fresh seeds."
    )
    if others:
        note += (
            f" The models were trained on {configs[0].trials[0].config.data.name}, and scored on "
            f"test tasks of {', '.join(others)} as well."
        )
    return Table(
        "Results of the confirmed configs",
        [
            "config",
            f"test {metric.title} {metric.unit}".rstrip(),
            *(f"test {metric.title} on {name} {metric.unit}".rstrip() for name in others),
            f"validation {metric.title} {metric.unit}".rstrip(),
            "fresh seeds",
            f"single seed {metric.unit}".rstrip(),
            "selection bias",
            "interval over test tasks",
        ],
        [_result(metric, config, others) for config in configs],
        note,
    )


def _result(metric: Metric, config: ConfirmedConfig, others: Sequence[str]) -> list[str]:
    candidate = config.candidate
    incomplete = f" ({config.incomplete} not complete)" if config.incomplete else ""
    single = selection_bias = "–"
    if candidate and candidate.value is not None and config.selection_bias is not None:
        single = metric.rounded(candidate.value, unit=False)
        selection_bias = points(metric, config.selection_bias)
    return [
        _name(config),
        metric.rounded(*config.test, unit=False),
        *(_on_other(metric, config, name) for name in others),
        metric.rounded(*config.val, unit=False),
        f"{len(config.seeds)}{incomplete}",
        single,
        selection_bias,
        f"± {metric.rounded(config.task_interval, unit=False)}",
    ]


def _on_other(metric: Metric, config: ConfirmedConfig, name: str) -> str:
    """The mean on the test tasks of another data set, with the number of seeds if some lack it."""
    if name not in config.others:
        return "–"
    mean, seeds = config.others[name]
    of = f" ({seeds} of {len(config.seeds)} seeds)" if seeds < len(config.seeds) else ""
    return metric.rounded(*mean, unit=False) + of


def _settings(sweep: Sweep, configs: Sequence[ConfirmedConfig]) -> Block:
    """The searched settings of the configs: a table, or a sentence if there is one config."""
    flat = [config.trials[0].config.flat() for config in configs]
    if len(configs) == 1:
        values = ", ".join(f"{name} {short(flat[0].get(name))}" for name in sweep.space)
        return f"Settings of {_name(configs[0])}: {values}."
    rows = [
        [_name(config), *(short(values.get(name)) for name in sweep.space)]
        for config, values in zip(configs, flat, strict=True)
    ]
    return Table("Settings of the confirmed configs", ["config", *sweep.space], rows)


def _seeds(metric: Metric, configs: Sequence[ConfirmedConfig]) -> Block:
    """The result of every seed: a figure, or a sentence if there is one config."""
    figure = _figure(metric, configs)
    if len(configs) == 1:
        (config,) = configs
        values = {
            "validation": [trial.value for trial in config.trials],
            "test": [trial.test_value for trial in config.trials],
        }
        texts = (
            f"{split} {', '.join(metric.rounded(v, unit=False) for v in of if v is not None)}"
            for split, of in values.items()
        )
        return InWords(f"Seed by seed: {'; '.join(texts)}{f' {metric.unit}'.rstrip()}.", [figure])
    return Gallery(
        "Results of each config: the single seed of explore or search by which it was "
        "selected, and fresh training seeds. Bars are 95 % t-intervals of the mean over "
        "training seeds.",
        [figure],
    )


def _seed_deviation_text(sweep: Sweep) -> list[str]:
    deviation, metric = seed_deviation(sweep), sweep.metric
    if deviation is None:
        return []
    return [
        "The pooled standard deviation over training seeds within a config is "
        f"{points(metric, deviation.deviation)}. A difference below "
        f"{points(metric, deviation.chance_difference)} between two configs with one seed each "
        "can be due to chance."
    ]


def _figure(metric: Metric, configs: Sequence[ConfirmedConfig]) -> Figure:
    width, _ = style.WIDE
    data: list[dict[str, object]] = []
    first_selected = next((config for config in configs if config.candidate), None)
    with style.panel((width, 0.6 * len(configs) + 1.6)) as (drawing, axes):
        for row, config in enumerate(configs):
            data += _draw_fresh_seeds(axes, metric, config, row)
            data += _draw_single_seed(axes, metric, config, row, config is first_selected)
        axes.set_yticks(range(len(configs)), [_name(config) for config in configs])
        axes.set_ylim(len(configs) - 0.5, -0.5)
        style.response_axis(axes, "x", replace(quality(metric), title=metric.title))
        drawing.legend(loc="outside upper center", ncols=2)
    alt = f"{len(configs)} configs: {quality(metric).title} and test, fresh seeds and single seed"
    return Figure("confirmed", "Fresh seeds", alt, drawing, data)


def _draw_fresh_seeds(
    axes: Axes, metric: Metric, config: ConfirmedConfig, row: int
) -> list[dict[str, object]]:
    """Draw means, intervals and values of the fresh seeds; returns the plotted values."""
    data = []
    for split, mean, values, offset, colour in (
        ("val", config.val, [t.value for t in config.trials], -_OFFSET, palette.GREEN),
        ("test", config.test, [t.test_value for t in config.trials], _OFFSET, palette.PURPLE),
    ):
        axes.errorbar(
            metric.scale * mean.value,
            row + offset,
            xerr=None if mean.interval is None else metric.scale * mean.interval,
            fmt="o",
            color=colour,
            capsize=3,
            label=_LABELS[split] if not row else None,
        )
        known = [value for value in values if value is not None]
        axes.scatter(
            [metric.scale * value for value in known],
            [row + offset] * len(known),
            s=10,
            color=colour,
        )
        pairs = zip(config.seeds, known, strict=True)
        data += [_data_row(config, split, seed, value) for seed, value in pairs]
    return data


def _draw_single_seed(
    axes: Axes, metric: Metric, config: ConfirmedConfig, row: int, with_label: bool
) -> list[dict[str, object]]:
    """Draw the validation result of the candidate, if there is one; returns the plotted value."""
    if config.candidate is None or config.candidate.value is None:
        return []
    axes.scatter(
        metric.scale * config.candidate.value,
        row - _OFFSET,
        marker="D",
        facecolor="none",
        edgecolor=palette.BLUE,
        label="validation, single seed" if with_label else None,
    )
    seed = config.candidate.config.seed
    return [_data_row(config, "val, single seed", seed, config.candidate.value)]


_LABELS = {"val": "validation, fresh seeds", "test": "test, fresh seeds"}

_OFFSET = 0.12
"""Vertical distance of the points of a config from the middle of its row."""


def _name(config: ConfirmedConfig) -> str:
    return config.candidate.run_name if config.candidate else "not in the ranking"


def _data_row(config: ConfirmedConfig, split: str, seed: int, value: float) -> dict[str, object]:
    return {"config": _name(config), "tasks": split, "seed": seed, "value": value}
