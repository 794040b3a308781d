"""Results of stage grid: the main effect of each dimension, and tables of K × N."""

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

from analysis.formatting import capitalised
from analysis.records.trials import Sweep, Trial
from analysis.report import style
from analysis.report.constant import is_constant, range_text
from analysis.report.page import Block, Figure, Gallery, InWords, Section
from analysis.report.sections import k_by_n
from analysis.statistics.factorial import Effect, difference, main_effects, varying
from analysis.statistics.responses import Response, quality, responses
from memmeta.config import TrainingConfig
from memmeta.system import palette
from memmeta.system.units import short

TITLE = "Grid"


def section(sweep: Sweep) -> Section | None:
    """The section; None without trials of stage grid."""
    if not sweep.trials_in("grid"):
        return None
    trials = sweep.trials_in("tune", "grid")
    tuned = sweep.settings.get("grid", {}).get("tuned", {})
    blocks: list[Block] = [_tuned(sweep, tuned)] if tuned else []
    for response in responses(sweep.metric):
        blocks += _effects(trials, response, tuned)
    for response in responses(sweep.metric):
        blocks += k_by_n.blocks(trials, response, tuned)
    return Section(TITLE, _finding(sweep, trials, tuned), blocks)


def _tuned(sweep: Sweep, tuned: Mapping[str, Sequence[object]]) -> str:
    values = "; ".join(
        f"{name} from {', '.join(map(short, choices))}" for name, choices in tuned.items()
    )
    budget = sweep.settings["grid"].get("tuning")
    amount = f" on {TrainingConfig(**budget).amount} each" if budget else ""
    return (
        f"Every cell was tuned separately in advance: {values}, with "
        f"{len(sweep.trials_in('tune'))} trials of stage tune{amount}. Tuning used one seed and "
        "the same validation tasks; the results below are from fresh seeds."
    )


def _finding(sweep: Sweep, trials: Sequence[Trial], tuned: Collection[str]) -> str:
    dimensions = {name: levels for name, levels in varying(trials).items() if name not in tuned}
    sizes = " × ".join(f"{len(levels)} {name}" for name, levels in dimensions.items())
    seeds = len({trial.config.seed for trial in sweep.trials_in("grid")})
    finding = f"{sizes or 'One config'}, {seeds} training {'seed' if seeds == 1 else 'seeds'}"
    effects = main_effects(trials, quality(sweep.metric), tuned)
    spans = [_span(list(own)) for _, own in groupby(effects, lambda e: e.dimension)]
    if not all(effect.by_seed for effect in effects):
        return f"{finding}; no seed has a result in every cell."
    if not spans:
        return f"{finding}."
    highest, lowest, mean, interval = max(spans, key=lambda span: span[2])
    unit = "points" if sweep.metric.unit else sweep.metric.title
    explanation = "from one seed: no interval"
    if interval is not None:
        explanation = f"95 % interval over {highest.seeds} seeds"
    return (
        f"{finding}. {highest.dimension} has the largest effect on {sweep.metric.title}: it is "
        f"{quality(sweep.metric).text(mean, interval)} {unit} higher at {short(highest.level)} "
        f"than at {short(lowest.level)} ({explanation}; selected as the largest difference)."
    )


def _span(effects: Sequence[Effect]) -> tuple[Effect, Effect, float, float | None]:
    """The levels with the highest and the lowest mean, and their difference with its interval."""
    highest, lowest = (choose(effects, key=lambda e: e.mean or 0.0) for choose in (max, min))
    mean, interval = difference(highest, lowest)
    return highest, lowest, mean or 0.0, interval


def _effects(trials: Sequence[Trial], response: Response, tuned: Collection[str]) -> list[Block]:
    effects = [e for e in main_effects(trials, response, tuned) if e.mean is not None]
    if not effects:
        return []
    figures = {
        name: _figure(response, list(own)) for name, own in groupby(effects, lambda e: e.dimension)
    }
    means = {name: [e.mean or 0.0 for e in effects if e.dimension == name] for name in figures}
    constant = [name for name in figures if is_constant(means[name])]
    drawn = [figure for name, figure in figures.items() if name not in constant]
    blocks: list[Block] = []
    if drawn:
        blocks.append(Gallery(_caption(response, effects[0]), drawn))
    if constant:
        ranges = (f"{range_text(response, means[name])} over {name}" for name in constant)
        text = (
            f"{capitalised(response.title)}, averaged over the other dimensions: "
            f"{', '.join(ranges)}. Averages that differ by less than 1 % are not drawn."
        )
        blocks.append(InWords(text, [figures[name] for name in constant]))
    return blocks


def _caption(response: Response, effect: Effect) -> str:
    intervals = (
        ", with its 95 % t-interval over training seeds. The interval includes effects of a seed "
        "on all levels, so levels can differ although their bars overlap"
    )
    return (
        f"Effect of each dimension on {response.title}: the mean over all cells at a level"
        f"{intervals if effect.seeds > 1 else ', for one training seed'}."
        f"{_excluded_seeds(effect.left_out)}"
    )


def _excluded_seeds(count: int) -> str:
    if not count:
        return ""
    seeds = "1 seed lacks a cell and is" if count == 1 else f"{count} seeds lack a cell and are"
    return f" {seeds} excluded."


def _figure(response: Response, effects: Sequence[Effect]) -> Figure:
    name = effects[0].dimension
    ordered = all(isinstance(effect.level, int | float) for effect in effects)
    with style.panel() as (drawing, axes):
        axes.errorbar(
            range(len(effects)),
            [effect.mean or 0.0 for effect in effects],
            yerr=[effect.interval or 0.0 for effect in effects],
            fmt="o-" if ordered else "o",
            color=palette.PURPLE,
            capsize=3,
        )
        axes.set_xticks(range(len(effects)), [short(effect.level) for effect in effects])
        axes.margins(x=0.15, y=0.15)
        axes.set_xlabel(name)
        style.response_axis(axes, "y", response)
    data = [
        {name: e.level, response.name: e.mean, "interval": e.interval, "seeds": e.seeds}
        for e in effects
    ]
    alt = f"Mean {response.title} at each level of {name}"
    return Figure(f"grid_{response.name}_{name}", name, alt, drawing, data)
