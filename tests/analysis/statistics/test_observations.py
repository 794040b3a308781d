import math
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.statistics.encoding import space_size
from analysis.statistics.observations import observations
from analysis.statistics.responses import STEP_TIME, quality
from memmeta.metric import ACCURACY
from sweeps.engine.study.dimension import dimension
from tests.analysis.made_up import trial

SPACE = {
    "algorithm": dimension("algorithm", ["memory_reduced", "anil"]),
    "cg_steps": dimension("cg_steps", {"low": 1, "high": 3}),
}
CONFIGS = st.tuples(st.sampled_from(["memory_reduced", "anil"]), st.integers(1, 3))


@given(st.lists(st.tuples(CONFIGS, st.floats(0.1, 10)), max_size=12))
def test_a_repeated_config_is_observed_once_with_its_mean(
    tries: list[tuple[tuple[str, int], float]],
) -> None:
    trials = [
        trial("explore", n, value / 100, seconds_per_step=value,
              learner={"algorithm": algorithm, "cg_steps": steps})
        for n, ((algorithm, steps), value) in enumerate(tries)
    ]  # fmt: skip
    by_config = defaultdict(list)
    for (algorithm, steps), value in tries:
        # ANIL has no conjugate-gradient steps.
        by_config[algorithm, steps if algorithm == "memory_reduced" else None].append(value)
    times = {
        (of.params["algorithm"], of.params.get("cg_steps")): of.value
        for of in observations(trials[::-1], SPACE, STEP_TIME)
    }
    assert list(times) == list(by_config)
    values = [of.value for of in observations(trials, SPACE, quality(ACCURACY))]
    for config, value in zip(by_config, values, strict=True):
        own = by_config[config]
        assert value == pytest.approx(sum(own) / len(own))
        assert times[config] == pytest.approx(math.prod(own) ** (1 / len(own)))


def test_only_complete_trials_of_explore_are_observed() -> None:
    trials = [
        trial("search", 0, 0.5),
        trial("explore", 0, 0.7, status="pruned"),
        trial("explore", 1, None, status="diverged"),
    ]
    assert observations(trials, SPACE, quality(ACCURACY)) == ()


def test_the_size_of_a_space_is_the_product_of_its_values() -> None:
    assert space_size(SPACE) == 6
    assert (
        space_size({"task_batch": dimension("task_batch", {"low": 4, "high": 16, "step": 4})}) == 4
    )
    assert space_size({"ridge": dimension("ridge", {"low": 0.1, "high": 0.5, "step": 0.1})}) == 5
    assert space_size({"ridge": dimension("ridge", {"low": 0.1, "high": 0.1})}) == 1
    assert space_size({**SPACE, "ridge": dimension("ridge", {"low": 0.1, "high": 0.5})}) == math.inf
    assert space_size({}) == 1
