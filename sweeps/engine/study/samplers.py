"""The samplers that can propose the trials of stage search: names, arguments and checks."""

import inspect
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from memmeta.errors import InputError, did_you_mean, shortened, shown
from memmeta.registry import ImportPath, Registry
from sweeps.engine.study.objective import Direction

SamplerFactory = Callable[..., BaseSampler]
"""A class of samplers, or a function that makes one. It gets `seed` and `constraints_func` if it
has parameters of these names."""

SamplerSpec = str | dict[str, Any]
"""The name of a sampler, or a dict with its `name` and arguments."""

_HUB = "optunahub:"
"""Start of the names of samplers on OptunaHub."""

_TOLD_TRIALS = 20
"""Trials that `check_sampler` reports first: many samplers draw the first ten at random."""


class _Samplers(Registry[SamplerFactory]):
    """A registry in which `optunahub:NAME` is a sampler on OptunaHub."""

    def __getitem__(self, name: str) -> SamplerFactory:
        return _from_hub(name) if name.startswith(_HUB) else super().__getitem__(name)


def _as_factory(found: Any, place: str) -> SamplerFactory:
    if not callable(found):
        raise ValueError(f"{place}: a class of samplers is expected, got {shown(found)}")
    factory: SamplerFactory = found
    return factory


SAMPLERS = _Samplers(
    "sampler",
    {
        "tpe": ImportPath("optuna.samplers:TPESampler"),
        "gp": ImportPath("optuna.samplers:GPSampler"),
        "nsgaii": ImportPath("optuna.samplers:NSGAIISampler"),
        "random": ImportPath("optuna.samplers:RandomSampler"),
    },
    group="memmeta.samplers",
    adopt=_as_factory,
)
"""Samplers by the name that `Study.sampler` and `--sampler` use.

A sampler must work with Optuna's ask-and-tell interface. It should use the constraints of trials,
so that it learns where trials diverge or run out of memory. Every proposal is made by a new sampler
with another seed. A sampler must therefore read its state from the Optuna study.
"""


def checked_spec(value: object) -> SamplerSpec:
    """The sampler in its recorded form, after a check of its name and arguments.

    Raises:
        ValueError: the sampler cannot be made. One on OptunaHub is not loaded yet.

    Examples:
        >>> checked_spec("optuna.samplers.CmaEsSampler")
        'optuna.samplers:CmaEsSampler'
        >>> checked_spec({"name": "tpe", "n_startup_trials": 5})
        {'name': 'tpe', 'n_startup_trials': 5}
    """
    spec = {"name": value} if isinstance(value, str) else value
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise ValueError("a name is accepted, or a name with arguments, as in {name: tpe, ...}")
    try:
        json.dumps(dict(spec))
    except (TypeError, ValueError):
        raise ValueError("numbers, texts, lists and dicts are accepted as arguments") from None
    name = SAMPLERS.check(_with_colon(spec["name"]))
    arguments = {key: spec[key] for key in spec if key != "name"}
    checked = {"name": name, **arguments} if arguments else name
    if not name.startswith(_HUB):
        make_sampler(checked, seed=0)
    return checked


def make_sampler(spec: SamplerSpec, seed: int) -> BaseSampler:
    """Make a sampler.

    Args:
        spec: the result of `checked_spec`.
        seed: its seed, if it takes one and the spec does not give another.

    Raises:
        ValueError: it cannot be imported, or refuses its arguments.
    """
    name, arguments = (spec, {}) if isinstance(spec, str) else (spec["name"], {**spec})
    arguments.pop("name", None)
    factory = SAMPLERS[name]
    try:
        with warnings.catch_warnings():
            # Some samplers announce with every proposal that they are experimental.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = factory(**_all_arguments(factory, arguments, seed))
    except Exception as error:
        raise ValueError(f"{name}: {_in_one_line(error)}") from None
    if not isinstance(sampler, BaseSampler):
        raise ValueError(f"{name}: makes {shown(sampler)} instead of a sampler of Optuna")
    return sampler


def check_sampler(
    spec: SamplerSpec, space: Mapping[str, BaseDistribution], directions: Sequence[Direction]
) -> None:
    """Ask the sampler for a proposal in this space, so that a sweep does not fail after hours.

    Packages that are not installed, a network that is not there and objectives that the sampler
    does not accept show only then. The samplers of memmeta need no check.

    Raises:
        InputError: the sampler cannot propose trials.
    """
    if isinstance(spec, str) and spec in SAMPLERS:
        return
    study = optuna.create_study(directions=list(directions), sampler=RandomSampler(seed=0))
    for number in range(_TOLD_TRIALS):
        trial = study.ask(dict(space))
        trial.set_constraint("feasible", 0.0)
        study.tell(trial, [float(number)] * len(directions))
    try:
        study.sampler = make_sampler(spec, seed=0)
        study.ask(dict(space))
    except Exception as error:
        raise InputError(f"sampler: {_in_one_line(error)}") from None


def _all_arguments(
    factory: SamplerFactory, arguments: Mapping[str, Any], seed: int
) -> dict[str, Any]:
    """The given arguments, and those that memmeta passes.

    Raises:
        ValueError: the sampler has no such parameter.
    """
    parameters = inspect.signature(factory).parameters
    unknown = [name for name in arguments if name not in parameters]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    if unknown and not takes_all:
        hint = did_you_mean(unknown[0], parameters)
        raise ValueError(f"no argument {unknown[0]}{hint}, accepted are {', '.join(parameters)}")
    ours: dict[str, Any] = {"seed": seed}
    # Optuna's own samplers read the constraints of trials, and warn of the function.
    if not factory.__module__.startswith("optuna."):
        ours["constraints_func"] = _constraints
    return {name: ours[name] for name in ours if name in parameters} | dict(arguments)


def _constraints(trial: FrozenTrial) -> Sequence[float]:
    return [*trial.constraints.values()]


def _with_colon(name: str) -> str:
    """The import path of a sampler that is named with dots only, as Python's messages do."""
    module, dot, attribute = name.rpartition(".")
    return f"{module}:{attribute}" if dot and ":" not in name and name not in SAMPLERS else name


@cache
def _from_hub(name: str) -> SamplerFactory:
    """The sampler that a package on OptunaHub defines.

    Args:
        name: `optunahub:hebo`, or with its folder, `optunahub:samplers/hebo`. If the package
            defines several classes of samplers, `:CLASS` selects one.

    Raises:
        ValueError: there is no such package, or it cannot be loaded.
    """
    try:
        import optunahub
    except ImportError:
        raise ValueError(f"{name}: needs the package optunahub (pip install optunahub)") from None
    package, _, wanted = name.removeprefix(_HUB).removeprefix("package/").partition(":")
    package = package if "/" in package else f"samplers/{package}"
    try:
        module = optunahub.load_module(package)
    except Exception as error:
        reason = _in_one_line(error)
        raise ValueError(f"{name} cannot be loaded from OptunaHub: {reason}") from None
    classes = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, BaseSampler)
        and value.__module__.startswith(module.__name__)
    }
    if wanted in classes:
        return classes[wanted]
    if wanted or len(classes) != 1:
        found = ", ".join(classes) or "none"
        raise ValueError(f"{name}: name one of its classes, as optunahub:NAME:CLASS ({found})")
    return classes.popitem()[1]


def _in_one_line(error: Exception) -> str:
    """The last line of a library's message, which names the problem."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shortened(lines[-1] if lines else type(error).__name__)
