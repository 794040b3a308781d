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


def test_accuracy_is_shown_in_per_cent_and_errors_as_they_are():
    assert (ACCURACY.key, MSE.key) == ("val_accuracy", "val_mse")
    assert ACCURACY.text(0.6123, 0.008) == "61.23 ± 0.80 %"
    assert ACCURACY.text(0.6123, 0.008, decimals=1) == "61.2 ± 0.8 %"
    assert ACCURACY.number(2 / 3, 0.1) == "66.67 ± 10.00"
    assert ACCURACY.alone(2 / 3) == "66.67%"
    assert MSE.text(2.0, 0.2731) == MSE.number(2.0, 0.2731, decimals=1) == "2.00 ± 0.27"
    assert MSE.alone(0.00012345) == "0.000123"
