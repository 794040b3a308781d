"""Confirmed results: fresh training seeds and test tasks, and how far one seed overstated them."""

from collections import Counter
from collections.abc import Sequence

from analysis.records.trials import RANKED, Sweep
from analysis.report import style
from analysis.report.page import Block, Figure, Gallery, Section, Table, cell
from analysis.report.sections.what_was_run import counted
from analysis.statistics.confirmed import ConfirmedConfig, confirmed, mean_optimism, seed_deviation
from analysis.statistics.responses import quality
from memmeta.metric import Metric
from sweeps.engine.study.seeds import SeedMean

TITLE = "Confirmed results"


def section(sweep: Sweep) -> Section | None:
    """The section; None without trials of explore, search and confirm."""
    if not sweep.of(*RANKED, "confirm"):
        return None
    configs = confirmed(sweep)
    if not configs:
        return Section(TITLE, _nothing(sweep))
    blocks: list[Block] = [
        _table(sweep, configs),
        Gallery(
            "Each config's single seed of explore or search, by which it was chosen, and what "
            "fresh training seeds gave. Bars are 95 % t-intervals of the mean over training seeds.",
            [_figure(sweep.metric, configs)],
        ),
        *_optimism(sweep),
    ]
    return Section(TITLE, _finding(sweep, configs), blocks)


def _nothing(sweep: Sweep) -> str:
    trials = sweep.of("confirm")
    if not trials:
        return "Nothing was confirmed with fresh seeds: run the sweep with --stage confirm."
    return (
        "Nothing is confirmed: no trial with a fresh seed has a result "
        f"({counted(Counter(trial.status for trial in trials))})."
    )


def _finding(sweep: Sweep, configs: Sequence[ConfirmedConfig]) -> str:
    metric, best = sweep.metric, configs[0]
    one = len(best.seeds) == 1
    seeds = "one fresh seed" if one else f"{len(best.seeds)} fresh seeds (95 % interval over seeds)"
    finding = (
        f"{best.test.text(metric)} {metric.title} on test tasks over {seeds}, "
        f"{best.val.text(metric)} on validation tasks{_chosen(configs)}"
    )
    optimism = mean_optimism(sweep)
    if optimism is not None:
        stated = "understated" if optimism < 0 else "overstated"
        amount = _points(metric, abs(optimism))
        finding += f". A single seed {stated} validation by {amount} on average"
    return finding + "."


def _chosen(configs: Sequence[ConfirmedConfig]) -> str:
    """Among which configs the first one is the best: only those with most seeds compare."""
    if len(configs) == 1:
        return ""
    most = sum(len(config.seeds) == len(configs[0].seeds) for config in configs)
    if most == len(configs):
        return f"; the best of {most} configs on these"
    if most == 1:
        return f"; of {len(configs)} configs the one with most seeds"
    return f"; the best on these of the {most} with most seeds, of {len(configs)} configs"


def _points(metric: Metric, difference: float) -> str:
    return f"{100 * difference:.1f} points" if metric.unit else f"{difference:.3g}"


def _table(sweep: Sweep, configs: Sequence[ConfirmedConfig]) -> Table:
    metric = sweep.metric
    names = list(sweep.space)
    return Table(
        "Means with 95 % t-intervals over fresh training seeds. The interval over test tasks says "
        "how far the figure of one trained model is uncertain because tasks are sampled: another "
        "thing than training seeds. Optimism is the single seed's validation result less the mean "
        "of fresh ones.",
        [
            "config",
            "fresh seeds",
            "test, over seeds",
            "test, over tasks",
            "validation, over seeds",
            "single seed",
            "optimism",
            *names,
        ],
        [_row(metric, config, names) for config in configs],
    )


def _row(metric: Metric, config: ConfirmedConfig, names: Sequence[str]) -> list[str]:
    candidate, settings = config.candidate, config.trials[0].config.flat()
    lost = f" ({config.incomplete} not complete)" if config.incomplete else ""
    single = optimism = ""
    if candidate and candidate.value is not None and config.optimism is not None:
        single = metric.alone(candidate.value)
        optimism = _points(metric, config.optimism)
    tasks = config.task_interval
    return [
        candidate.run_name if candidate else "not in the ranking",
        f"{len(config.seeds)}{lost}",
        config.test.text(metric),
        f"± {100 * tasks:.1f} %" if metric.unit else f"± {tasks:.2g}",
        config.val.text(metric),
        single,
        optimism,
        *(cell(settings.get(name)) for name in names),
    ]


def _optimism(sweep: Sweep) -> list[str]:
    deviation, metric = seed_deviation(sweep), sweep.metric
    if deviation is None:
        return []
    return [
        f"The standard deviation over training seeds, within a config, is "
        f"{_points(metric, deviation.deviation)} (pooled). Of two configs with one seed each, "
        f"differences below {_points(metric, deviation.told_apart)} can be chance."
    ]


def _figure(metric: Metric, configs: Sequence[ConfirmedConfig]) -> Figure:
    scale = 100 if metric.unit else 1
    width, height = style.WIDE
    data: list[dict[str, object]] = []
    chosen = [config for config in configs if config.candidate]
    with style.panel((width, max(height, 0.6 * len(configs) + 1.2))) as (drawing, axes):
        for place, config in enumerate(configs):
            fresh = [("val", place - 0.12, style.GREEN), ("test", place + 0.12, style.PURPLE)]
            for split, y, colour in fresh:
                mean: SeedMean = getattr(config, split)
                attribute = "value" if split == "val" else "test_value"
                values = [getattr(trial, attribute) for trial in config.trials]
                axes.errorbar(
                    scale * mean.value,
                    y,
                    xerr=None if mean.interval is None else scale * mean.interval,
                    fmt="o",
                    color=colour,
                    capsize=3,
                    label=_LABELS[split] if not place else None,
                )
                axes.scatter([scale * v for v in values], [y] * len(values), s=10, color=colour)
                data += [
                    _line(config, split, s, v) for s, v in zip(config.seeds, values, strict=True)
                ]
            if config.candidate and config.candidate.value is not None:
                single = config.candidate.value
                label = "validation, single seed" if config is chosen[0] else None
                axes.scatter(
                    scale * single,
                    place - 0.12,
                    marker="D",
                    facecolor="none",
                    edgecolor=style.BLUE,
                    label=label,
                )
                seed = config.candidate.config.seed
                data.append(_line(config, "val, single seed", seed, single))
        axes.set_yticks(range(len(configs)), [_name(config) for config in configs])
        axes.invert_yaxis()
        axes.set_xlabel(f"{metric.title} ({metric.unit})" if metric.unit else metric.title)
        drawing.legend(loc="outside upper center", ncols=2)
    alt = f"{len(configs)} configs: {quality(metric).title} and test, fresh seeds and single seed"
    return Figure("confirmed", "Fresh seeds", alt, drawing, data)


_LABELS = {"val": "validation, fresh seeds", "test": "test, fresh seeds"}


def _name(config: ConfirmedConfig) -> str:
    return config.candidate.run_name if config.candidate else "–"


def _line(config: ConfirmedConfig, split: str, seed: int, value: float) -> dict[str, object]:
    return {"config": _name(config), "tasks": split, "seed": seed, "value": value}
