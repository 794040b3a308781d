"""Dimensions of a search space, read from Python and YAML."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from sweeps.engine.study.dimension import choices, described, dimension

numbers = st.floats(0.001, 100)
dimensions = st.one_of(
    st.tuples(
        st.just("ridge"), st.builds(lambda a, b: FloatDistribution(a, a + b), numbers, numbers)
    ),
    st.tuples(
        st.just("inner_lr"),
        st.builds(lambda a, b: FloatDistribution(a, a + b, log=True), numbers, numbers),
    ),
    st.tuples(
        st.just("ridge"),
        st.builds(lambda n, s: FloatDistribution(0, n * s, step=s), st.integers(1, 9), st.just(0.5))
        | st.just(FloatDistribution(0, 3, step=1)),
    ),
    st.tuples(
        st.just("chunk"),
        st.builds(
            lambda a, n, s: IntDistribution(a, a + n * s, step=s),
            st.integers(1, 9),
            st.integers(0, 9),
            st.integers(1, 9),
        ),
    ),
    st.just(("cg_steps", IntDistribution(1, 20, log=True))),
    st.tuples(
        st.just("chunk"),
        st.lists(st.none() | st.integers(1), min_size=1, unique=True).map(CategoricalDistribution),
    ),
    st.just(("first_order", CategoricalDistribution((True, False)))),
)


@given(dimensions)
def test_dimensions_survive_a_round_trip_through_yaml(named):
    name, distribution = named
    text = yaml.safe_dump(described(distribution))
    assert dimension(name, yaml.safe_load(text)) == distribution
    assert dimension(name, distribution) == distribution


def test_values_have_the_type_of_the_field():
    # YAML parses 1e-3, which has no decimal point, as text.
    assert dimension("ridge", {"low": "1e-3", "high": 1}) == FloatDistribution(1e-3, 1.0)
    assert choices("ridge", ["1e-3", 1]) == [0.001, 1.0]
    assert type(choices("ridge", [1])[0]) is float
    assert type(choices("inner_steps", [5.0])[0]) is int


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "inner_lrr",
            [1],
            r"unknown key .did you mean inner_lr.., accepted are .*, warm_start",
        ),
        ("inner_lr", {"low": 0, "high": 1}, r"input should be greater than 0, got 0\.0"),
        ("inner_lr", {"low": 2, "high": 1}, r"low=2\.0, high=1\.0"),
        ("inner_lr", {"low": 1}, "range: high: field required"),
        ("inner_lr", {"low": 1, "high": 2, "lgo": True}, "range: unknown key lgo"),
        (
            "inner_lr",
            {"low": 0.1, "high": 1, "step": 0.2},
            r"no step of 0\.2 reaches high 1\.0; 0\.9",
        ),
        ("inner_lr", 3, "a range with low and high, a list of choices, FloatDistribution or"),
        ("inner_steps", {"low": 0.5, "high": 2}, r"range: low: .*got 0\.5"),
        ("inner_steps", FloatDistribution(1, 9), "IntDistribution or CategoricalDistribution"),
        ("ridge", IntDistribution(1, 9), "FloatDistribution or CategoricalDistribution"),
        ("task_batch", IntDistribution(0, 4), "greater than or equal to 1, got 0"),
        ("norm", {"low": 1, "high": 2}, "a list of choices is accepted"),
        ("first_order", IntDistribution(0, 1), "a list of choices is accepted"),
        ("norm", ["batch", "layer"], "'batch', 'frozen' or 'group', got 'layer'"),
        ("norm", [], "at least one value"),
        ("inner_steps", [1, "1"], "1 is repeated"),
    ],
)
def test_a_dimension_that_the_field_does_not_accept_is_refused(name, value, said):
    with pytest.raises(ValueError, match=said):
        dimension(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ridge", {"low": 0, "high": 1, "step": 1e-10}),
        ("ridge", {"low": 0, "high": 1e300, "step": 1}),
        ("ridge", {"low": 0, "high": 1, "step": 5e-324}),
        ("task_pool", {"low": 8, "high": 10**19}),
        ("chunk", {"low": 50, "high": 50 * 10**30, "step": 50}),
    ],
)
def test_a_range_beyond_the_limits_of_numbers_is_refused(name, value):
    with pytest.raises(ValueError, match=r"values|integers up to"):
        dimension(name, value)


def test_an_unknown_name_among_choices_is_refused_with_the_known_names():
    said = r"^no such algorithm, choose from memory_reduced, .*'foo'"
    with pytest.raises(ValueError, match=said):
        dimension("algorithm", ["anil", "foo"])
