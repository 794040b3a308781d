import pytest

from memmeta.config import DataConfig
from memmeta.metric import ACCURACY, MSE


def test_regression_is_judged_by_its_error_and_classification_by_accuracy():
    assert DataConfig(name="sinusoid", ways=1).metric is MSE
    for name in ("glyphs", "cifar_fs", "fc100", "miniimagenet", "tieredimagenet", "omniglot"):
        assert DataConfig(name=name).metric is ACCURACY


@pytest.mark.parametrize(
    ("metric", "values"), [(ACCURACY, [0.9, 0.5, 0.1]), (MSE, [0.01, 0.5, 20.0, 1e30])]
)
def test_the_best_comes_first_and_what_has_no_value_last(metric, values):
    assert sorted([None, *reversed(values)], key=metric.order) == [*values, None]
    assert metric.order(values[-1]) < metric.order(metric.worst) == metric.order(None)


def test_a_run_has_all_its_digits():
    assert (ACCURACY.key, MSE.key) == ("val_accuracy", "val_mse")
    assert ACCURACY.text(0.6123, 0.008) == "61.23 ± 0.80 %"
    assert ACCURACY.alone(2 / 3) == "66.67%"
    assert MSE.text(2.0, 0.2731) == "2.00 ± 0.27"
    assert MSE.alone(0.00012345) == "0.000123"


@pytest.mark.parametrize(
    ("metric", "value", "half_width", "text"),
    [
        (ACCURACY, 0.6772, 0.0123, "67.7 ± 1.2 %"),
        (ACCURACY, 0.7342, 0.0047, "73.4 ± 0.5 %"),
        (ACCURACY, 0.98761, 0.0003, "98.76 ± 0.03 %"),
        (ACCURACY, 0.72, 0.25413, "72 ± 25 %"),
        (ACCURACY, 0.5, 0.0, "50.0 ± 0.0 %"),
        (ACCURACY, 0.6123, None, "61.2 %"),
        (MSE, 0.4, 0.0204, "0.400 ± 0.020"),
        (MSE, 12.345, 0.31, "12.35 ± 0.31"),
        (MSE, 0.00012345, None, "0.000123"),
        (MSE, 1e30, 2e29, "1e+30 ± 2e+29"),
    ],
)
def test_tables_have_the_digits_that_the_half_width_supports(metric, value, half_width, text):
    assert metric.rounded(value, half_width) == text
    assert metric.rounded(value, half_width, unit=False) == text.removesuffix(" %")
