"""Configs that are laid out beforehand: a space-filling design and a factorial one."""

import functools
import itertools
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from memmeta.config import LearnerConfig
from memmeta.errors import InputError, shown
from memmeta.system.plain_yaml import parse_yaml
from sweeps.engine.study import space
from sweeps.engine.study.space import applicable, at
from sweeps.engine.study.study import Study

_SMALL = 10_000
"""Configs of a space that are counted; a larger one is never exhausted."""

_TRIES = 64
"""Points of the design that are tried in a small space."""

_SMALLEST_BLOCK = 10
"""Points are made 2^10 at once, or more."""


def sobol_point(study: Study, seed: int, index: int) -> dict[str, Any]:
    """Params of point `index` of a scrambled Sobol sequence, whatever other points are used."""
    block = max(_SMALLEST_BLOCK, index.bit_length())
    point = _points(len(study.space), seed, block)[index] if study.space else ()
    return at(point, study.space, study.learner)


def all_configs(study: Study) -> list[dict[str, Any]] | None:
    """The params of every config in the study's space; None if the space is not small."""
    return space.all_points(study.space, study.learner, _SMALL)


def new_point(
    study: Study,
    seed: int,
    index: int,
    known: Container[Hashable],
    configs: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    """The first point of the Sobol design, from point `index` on, that is not known.

    In a small space such a point can take long to come; then it is the first of all its configs.

    Args:
        study: its space.
        seed: of the sweep.
        index: where to begin.
        known: what `space.point` gives for params that are not to be repeated.
        configs: what `all_configs` gives for the study.
    """
    numbers = itertools.count(index) if configs is None else range(index, index + _TRIES)
    points = (sobol_point(study, seed, number) for number in numbers)
    candidates = itertools.chain(points, configs or ())
    return next(params for params in candidates if space.point(params) not in known)


@functools.lru_cache(maxsize=4)
def _points(dimensions: int, seed: int, block: int) -> np.ndarray:
    """The first 2^block points; a longer sequence begins with a shorter one's."""
    # Half a second to import, which only stage explore has to wait for.
    from scipy.stats import qmc

    points: np.ndarray = qmc.Sobol(dimensions, scramble=True, rng=seed).random_base2(block)
    return points


def grid_cells(study: Study) -> list[list[dict[str, Any]]]:
    """The cells of the factorial design, and in each the params that are to be tried there.

    These differ in what the study tunes; where it tunes nothing there is one. Params that differ
    only in what does not apply to them are one.
    """
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for params in _combinations(study.grid, {}, study.learner):
        cells[tuple(params.items())] = _combinations(study.tuned, params, study.learner)
    return list(cells.values())


def _combinations(
    grid: Mapping[str, Sequence[Any]], others: Mapping[str, Any], learner: LearnerConfig
) -> list[dict[str, Any]]:
    """All combinations of values, each with `others`, less what does not apply."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for values in itertools.product(*grid.values()):
        params = applicable({**others, **dict(zip(grid, values, strict=True))}, learner)
        found.setdefault(tuple(params.items()), params)
    return list(found.values())


def parse_grid(option: str, texts: Iterable[str]) -> dict[str, list[Any]]:
    """Fields and their values from texts like `inner_steps=1,5,20`, each value as YAML has it.

    Args:
        option: what they were given for, `--grid` or `--tune`.
        texts: one for each field.

    Raises:
        InputError: one is not of this form, or two are of one field.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, values = _parse(option, text)
        if name in grid:
            raise InputError(f"{option} {shown(text)}: {name} is there twice")
        grid[name] = values
    return grid


def _parse(option: str, text: str) -> tuple[str, list[Any]]:
    name, _, values = text.partition("=")
    parts = values.split(",")
    refusal = InputError(
        f"{option} {shown(text)}: FIELD=VALUE,VALUE,... is accepted, such as inner_steps=1,5,20"
    )
    if not all(part.strip() for part in (name, *parts)):
        raise refusal
    try:
        return name.strip(), [parse_yaml(part, option) for part in parts]
    except InputError:
        raise refusal from None
