"""Search spaces, compared with the learner's behaviour and with mappings computed by hand."""

import itertools
import math
import time
from collections import Counter

import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError

from memmeta.algorithms import ALGORITHMS
from memmeta.config import LearnerConfig
from memmeta.data.episodes import Episodes
from memmeta.networks import models
from sweeps.engine.study import space
from sweeps.engine.study.dimension import dimension

SMALL = {"filters": 2, "inner_steps": 2, "cg_steps": 1, "task_batch": 2, "task_pool": 4}

SPACE = {
    "inner_lr": FloatDistribution(0.03, 3.0, log=True),
    "cg_steps": IntDistribution(1, 20, log=True),
    "inner_steps": IntDistribution(0, 3),
    "feature_reuse": CategoricalDistribution((True, False)),
    "algorithm": CategoricalDistribution(("memory_reduced", "itd_bio", "anil", "maml")),
    "first_order": CategoricalDistribution((True, False)),
    "head_width": IntDistribution(16, 64, step=16),
    "head": CategoricalDistribution(("linear", "mlp")),
    "ridge": FloatDistribution(0.0, 1.0, step=0.25),
    "chunk": CategoricalDistribution((None, 50)),
    "task_pool": CategoricalDistribution((None, 32)),
    "warm_start": CategoricalDistribution((True, False)),
    "outer_lr": FloatDistribution(0.5, 1.5),
}

below_1 = st.floats(0, 1, exclude_max=True)
points = st.lists(below_1, min_size=len(SPACE), max_size=len(SPACE))


def by_hand(share, low, high, log=False, step=None):
    """The value at a coordinate of a range, found by counting bins."""
    if step is not None:
        values = [low]
        while values[-1] + step <= high + 1e-9:
            values.append(values[-1] + step)
        return next(v for i, v in enumerate(values, 1) if share < i / len(values))
    return low * (high / low) ** share if log else low * (1 - share) + high * share


def all_by_hand(point):
    """A value of every dimension, active or not."""
    values = {}
    for share, (name, d) in zip(point, SPACE.items(), strict=True):
        if isinstance(d, CategoricalDistribution):
            values[name] = d.choices[by_hand(share, 0, len(d.choices) - 1, step=1)]
        elif isinstance(d, IntDistribution) and d.log:
            values[name] = min(max(round(by_hand(share, d.low - 0.5, d.high + 0.5, True)), 1), 20)
        else:
            values[name] = by_hand(share, d.low, d.high, d.log, d.step)
    return values


@given(points)
def test_at_returns_the_values_of_active_fields_computed_by_hand(point):
    values, base = all_by_hand(point), LearnerConfig()
    expected = {
        name: pytest.approx(value) if isinstance(value, float) else value
        for name, value in values.items()
        if space.applies(name, base.model_dump() | values)
    }
    assert space.at(point, SPACE, base) == expected


@given(points)
def test_suggest_asks_for_active_fields_only(point):
    params = space.at(point, SPACE, LearnerConfig())
    # A FixedTrial raises if it is asked for a field that it has no value for.
    trial = optuna.trial.FixedTrial(params)
    asked = space.suggest(trial, SPACE, LearnerConfig())
    assert asked == params
    assert list(asked) == list(params)
    assert trial.distributions == space.distributions(params, SPACE)


def test_a_sampler_is_asked_in_the_same_order_every_time():
    def ask(seed):
        sampler = optuna.samplers.RandomSampler(seed=seed)
        trial = optuna.create_study(sampler=sampler).ask()
        return space.suggest(trial, SPACE, LearnerConfig())

    assert ask(1) == ask(1)
    order = ["inner_steps", "algorithm", "head", "task_pool"]
    rest = [name for name in SPACE if name not in order]
    for seed in range(20):
        names = list(ask(seed))
        assert names[:4] == order
        assert names[4:] == [name for name in rest if name in names]


@given(low=st.integers(-5, 5), step=st.integers(1, 4), count=st.integers(1, 30))
def test_every_integer_of_a_range_has_the_same_share(low, step, count):
    d = {"inner_steps": IntDistribution(low, low + step * (count - 1), step=step)}
    middles = [(i + 0.5) / (10 * count) for i in range(10 * count)]
    found = Counter(space.at([u], d, LearnerConfig())["inner_steps"] for u in middles)
    assert found == {low + step * i: 10 for i in range(count)}


@given(low=st.integers(1, 5), more=st.integers(0, 30))
def test_every_integer_of_a_log_range_has_the_share_of_its_unit_interval(low, more):
    high, n = low + more, 2000
    d = {"cg_steps": IntDistribution(low, high, log=True)}
    found = Counter(space.at([(i + 0.5) / n], d, LearnerConfig())["cg_steps"] for i in range(n))
    total = math.log((high + 0.5) / (low - 0.5))
    for value in range(low, high + 1):
        share = math.log((value + 0.5) / (value - 0.5)) / total
        assert found.pop(value) == pytest.approx(n * share, abs=1.01)
    assert not found


@given(st.floats(1e-6, 1e3), st.floats(1, 1e6), st.booleans())
def test_no_value_is_outside_its_range(low, factor, log):
    d = {"inner_lr": FloatDistribution(low, low * factor, log=log)}
    for share in (0.0, math.nextafter(1, 0)):
        value = space.at([share], d, LearnerConfig())["inner_lr"]
        assert low <= value <= low * factor
        assert value == pytest.approx(low * factor if share else low)


def gradients(config):
    """Gradients of a step on random images, or on random vectors for backbone mlp."""
    shape = (4,) if config.backbone == "mlp" else (3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.rand(2, n, *shape, generator=generator) for n in (4, 6))
    torch.manual_seed(0)
    model = models.build_model(config, shape, outputs=2)
    model.calibrate(support.flatten(0, 1))
    labels = [torch.arange(n).remainder(2).expand(2, n) for n in (4, 6)]
    ALGORITHMS[config.algorithm].backward(
        model, Episodes(support, labels[0], query, labels[1]), config
    )
    return [parameter.grad for parameter in model.learned()]


def differs(one, other):
    a, b = gradients(one), gradients(other)
    return [x.shape for x in a] != [x.shape for x in b] or not all(map(torch.allclose, a, b))


@pytest.mark.parametrize(
    ("name", "value", "learner"),
    [
        ("cg_steps", 3, {"algorithm": "itd_bio"}),
        ("cg_steps", 3, {"algorithm": "anil"}),
        ("cg_steps", 3, {"algorithm": "maml"}),
        ("feature_reuse", False, {"algorithm": "memory_reduced"}),
        ("feature_reuse", False, {"algorithm": "maml"}),
        ("first_order", True, {"algorithm": "memory_reduced"}),
        ("chunk", 10, {"algorithm": "maml"}),
        ("filters", 3, {"backbone": "mlp"}),
        ("norm", "group", {"backbone": "mlp"}),
        ("head_width", 3, {"head": "linear"}),
        ("head_width", 3, {"head": "last_block"}),
        ("inner_lr", 0.1, {"inner_steps": 0}),
        ("warm_start", True, {"task_pool": None}),
        ("warm_start", True, {"algorithm": "anil"}),
        ("warm_start", True, {"algorithm": "maml"}),
    ],
)
def test_an_inactive_field_is_refused_by_the_learner_or_has_no_effect(name, value, learner):
    config = LearnerConfig(**SMALL | learner)
    assert not space.applies(name, config.model_dump())
    try:
        other = LearnerConfig(**SMALL | learner | {name: value})
    except ValidationError:
        return
    assert not differs(config, other)


@pytest.mark.parametrize(
    ("name", "value", "learner"),
    [
        ("cg_steps", 3, {"algorithm": "memory_reduced"}),
        ("first_order", True, {"algorithm": "itd_bio"}),
        ("first_order", True, {"algorithm": "anil"}),
        ("first_order", True, {"algorithm": "maml"}),
        ("filters", 3, {"backbone": "conv4"}),
        ("norm", "group", {"backbone": "conv4"}),
        ("head_width", 3, {"head": "mlp"}),
        ("inner_lr", 0.1, {"inner_steps": 1}),
        ("ridge", 0.5, {}),
        ("feature_scaling", "none", {}),
    ],
)
def test_an_active_field_has_an_effect(name, value, learner):
    config = LearnerConfig(**SMALL | learner)
    assert space.applies(name, config.model_dump())
    assert differs(config, LearnerConfig(**SMALL | learner | {name: value}))


@pytest.mark.parametrize(
    ("name", "value", "algorithms"),
    [
        # These change memory, time or later steps, but not the gradient of the first step.
        ("feature_reuse", False, ["itd_bio", "anil"]),
        ("chunk", 10, ["memory_reduced", "itd_bio", "anil"]),
        ("warm_start", True, ["memory_reduced", "itd_bio"]),
    ],
)
def test_an_active_field_is_accepted(name, value, algorithms):
    for algorithm in algorithms:
        config = LearnerConfig(**SMALL, algorithm=algorithm)
        assert space.applies(name, config.model_dump())
        assert getattr(LearnerConfig(**SMALL, algorithm=algorithm, **{name: value}), name) == value


FINITE = {
    "algorithm": [["memory_reduced", "anil"], ["maml"]],
    "head": [["linear", "mlp"]],
    "inner_steps": [[0, 2], {"low": 1, "high": 3}],
    "inner_lr": [{"low": 0.1, "high": 0.5, "step": 0.1}, {"low": 0.1, "high": 0.1}],
    "cg_steps": [{"low": 0, "high": 4, "step": 2}],
    "head_width": [{"low": 1, "high": 3}],
    "ridge": [[0.0, 0.5]],
}


@given(st.fixed_dictionaries({}, optional={n: st.sampled_from(d) for n, d in FINITE.items()}))
def test_all_params_of_a_finite_space_are_its_valid_combinations(given_space):
    dimensions = {name: dimension(name, value) for name, value in given_space.items()}
    values = [
        value if isinstance(value, list) else evenly(dimensions[name])
        for name, value in given_space.items()
    ]
    expected = {
        space.params_key(
            space.applicable(dict(zip(dimensions, chosen, strict=True)), LearnerConfig())
        )
        for chosen in itertools.product(*values)
    }
    found = space.all_params(dimensions, LearnerConfig(), most=10_000)
    assert len(found) == len({*map(space.params_key, found)})
    assert {*map(space.params_key, found)} == expected
    assert space.all_params(dimensions, LearnerConfig(), most=len(expected) - 1) is None
    assert len(space.all_params(dimensions, LearnerConfig(), most=len(expected))) == len(expected)


def evenly(distribution):
    number, values = distribution.low, []
    while number <= distribution.high + 1e-9:
        values.append(number)
        number = number + (distribution.step or 1)
    return values


@pytest.mark.parametrize(
    ("given_space", "base", "configs"),
    [
        # The size of a dimension that is never active does not matter.
        ({"head_width": {"low": 1, "high": 10_000}, "inner_steps": [1, 2]}, {}, 2),
        ({"cg_steps": {"low": 0, "high": 10_000}}, {"algorithm": "anil"}, 1),
        ({"inner_lr": {"low": 0.1, "high": 1.0}, "inner_steps": [0]}, {}, 1),
        ({"ridge": {"low": 0.01, "high": 0.0100000000000001}}, {}, 1),
        ({"inner_lr": {"low": 0.1, "high": 1.0}, "inner_steps": [0, 1]}, {}, None),
        ({"ridge": {"low": 0.0, "high": 1.0, "step": 1e-8}}, {}, None),
        ({"task_pool": {"low": 8, "high": 10**9}}, {}, None),
    ],
)
def test_large_spaces_are_not_enumerated(given_space, base, configs):
    dimensions = {name: dimension(name, value) for name, value in given_space.items()}
    begun = time.process_time()
    found = space.all_params(dimensions, LearnerConfig(**base), most=10_000)
    assert (found if found is None else len(found)) == configs
    assert time.process_time() - begun < 1


def active(fields, base):
    return {name for name in fields if space.applies(name, base.model_dump())}


def test_fields_of_own_networks_are_active_for_these_only():
    fields = {"filters", "norm", "precision", "weights", "train_last", "input_size"}
    assert active(fields, LearnerConfig()) == {"filters", "norm", "precision"}
    own = LearnerConfig(backbone="timm/resnet18")
    assert active(fields, own) == {"weights", "train_last", "input_size"}


def test_fields_of_the_outer_loop_are_inactive_if_it_learns_nothing():
    fields = {"outer_lr", "schedule", "weight_decay", "task_batch", "cg_steps", "ridge"}
    frozen = LearnerConfig(backbone="timm/resnet18", train_last=0)
    assert active(fields, frozen) == {"ridge"}
    anil = LearnerConfig(backbone="timm/resnet18", train_last=0, algorithm="anil")
    assert active(fields, anil) == fields - {"cg_steps"}


def test_blocks_that_learn_are_a_dimension_of_own_networks():
    dimensions = {
        "outer_lr": dimension("outer_lr", [0.1, 0.2]),
        "train_last": dimension("train_last", [0, 1]),
        "backbone": dimension("backbone", ["conv4", "timm/resnet18"]),
    }
    found = space.all_params(dimensions, LearnerConfig(), most=100)
    own = {"backbone": "timm/resnet18"}
    expected = [
        *({"backbone": "conv4", "outer_lr": lr} for lr in (0.1, 0.2)),
        own | {"train_last": 0},
        *(own | {"train_last": 1, "outer_lr": lr} for lr in (0.1, 0.2)),
    ]
    assert sorted(map(str, map(sorted, map(dict.items, found)))) == sorted(
        map(str, map(sorted, map(dict.items, expected)))
    )
    for point in itertools.product((0.1, 0.9), repeat=3):
        assert space.at(point, dimensions, LearnerConfig()) in expected
