"""Designs that are fixed before the sweep starts: space-filling (Sobol) and factorial."""

import functools
import itertools
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from memmeta.config import LearnerConfig
from memmeta.errors import InputError, shown
from memmeta.system.plain_yaml import parse_yaml
from sweeps.engine.study.space import all_params, applicable, at, params_key
from sweeps.engine.study.study import Study

_SMALL = 10_000
"""Maximum number of configs of a small space. A larger space is never exhausted."""

_TRIES = 64
"""Points of the design to try in a small space, before a config is taken from the full list."""

_SMALLEST_BLOCK = 10
"""Points are generated in blocks of at least 2^10."""


def sobol_point(study: Study, seed: int, index: int) -> dict[str, Any]:
    """Params of one point of a scrambled Sobol sequence. They do not depend on other points.

    Args:
        study: defines the space.
        seed: seed of the scrambling.
        index: number of the point, from 0.
    """
    block = max(_SMALLEST_BLOCK, index.bit_length())
    point = _points(len(study.space), seed, block)[index] if study.space else ()
    return at(point, study.space, study.learner)


def all_configs(study: Study) -> list[dict[str, Any]] | None:
    """The params of every config in the study's space; None if there are more than 10 000."""
    return all_params(study.space, study.learner, _SMALL)


def new_point(
    study: Study,
    seed: int,
    index: int,
    known: Container[Hashable],
    configs: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    """The params of the first point of the Sobol design that is not known yet.

    In a small space, the design may need many points to reach a new config. After some tries the
    first new config of the full list is returned instead.

    Args:
        study: defines the space.
        seed: seed of the sweep.
        index: first point of the design to try.
        known: `params_key` of the params to skip.
        configs: `all_configs(study)`.
    """
    numbers = itertools.count(index) if configs is None else range(index, index + _TRIES)
    points = (sobol_point(study, seed, number) for number in numbers)
    candidates = itertools.chain(points, configs or ())
    return next(params for params in candidates if params_key(params) not in known)


@functools.lru_cache(maxsize=4)
def _points(dimensions: int, seed: int, block: int) -> np.ndarray:
    """The first 2^block points. A longer sequence starts with the points of a shorter one."""
    # This import takes half a second, and only stage explore needs it.
    from scipy.stats import qmc

    points: np.ndarray = qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2(block)
    return points


def grid_cells(study: Study) -> list[list[dict[str, Any]]]:
    """The cells of the factorial design.

    Each cell is a list of the params to try in it: one for each combination of the tuned fields, or
    a single one if the study tunes nothing. Params that differ only in inactive fields are merged.
    """
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for params in _combinations(study.grid, {}, study.learner):
        cells[tuple(params.items())] = _combinations(study.tuned, params, study.learner)
    return list(cells.values())


def _combinations(
    grid: Mapping[str, Sequence[Any]], others: Mapping[str, Any], learner: LearnerConfig
) -> list[dict[str, Any]]:
    """All combinations of values, each merged with `others`, without inactive fields."""
    combinations: dict[tuple[Any, ...], dict[str, Any]] = {}
    for values in itertools.product(*grid.values()):
        params = applicable({**others, **dict(zip(grid, values, strict=True))}, learner)
        combinations.setdefault(tuple(params.items()), params)
    return list(combinations.values())


def parse_grid(option: str, texts: Iterable[str]) -> dict[str, list[Any]]:
    """Parse grid options such as `inner_steps=1,5,20`. Each value is parsed as YAML.

    Args:
        option: the option that is parsed, `--grid` or `--tune`.
        texts: one text for each field.

    Raises:
        InputError: a text does not have this form, or a field is given twice.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, values = _parse(option, text)
        if name in grid:
            raise InputError(f"{option} {shown(text)}: {name} is given twice")
        grid[name] = values
    return grid


def _parse(option: str, text: str) -> tuple[str, list[Any]]:
    name, _, values = text.partition("=")
    items = values.split(",")
    refusal = InputError(
        f"{option} {shown(text)}: FIELD=VALUE,VALUE,... is accepted, such as inner_steps=1,5,20"
    )
    if not all(item.strip() for item in (name, *items)):
        raise refusal
    try:
        return name.strip(), [parse_yaml(item, option) for item in items]
    except InputError:
        raise refusal from None
