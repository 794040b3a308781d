"""Axes and colours of figures."""

import pytest

from analysis.report import style
from analysis.statistics.responses import PEAK_MEMORY, STEP_TIME, Response, quality
from memmeta.metric import ACCURACY, MSE


def limits(response: Response, values: list[float], log: bool) -> tuple[float, float]:
    with style.panel() as (_, axes):
        axes.plot(values, values)
        style.response_axis(axes, "y", response, log=log)
        return axes.get_ylim()


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("response", [PEAK_MEMORY, STEP_TIME, quality(MSE)])
def test_an_axis_of_nearly_equal_values_does_not_zoom_in(response: Response, log: bool) -> None:
    low, high = limits(response, [108.9, 109.1], log)
    assert low < 108.9 < 109.1 < high
    assert high - low > 0.3 * 109


def test_an_axis_of_nearly_equal_accuracies_spans_five_points() -> None:
    low, high = limits(quality(ACCURACY), [68.4, 68.5], log=False)
    assert high - low == pytest.approx(5)
    assert (low + high) / 2 == pytest.approx(68.45)


def test_an_axis_of_different_values_is_not_widened() -> None:
    low, high = limits(quality(ACCURACY), [40.0, 60.0], log=False)
    assert 38 < low < 40 < 60 < high < 62
    low, high = limits(PEAK_MEMORY, [50.0, 500.0], log=True)
    assert 40 < low < 50 < 500 < high < 600


def test_series_are_dodged_within_the_smallest_gap() -> None:
    values = [1.0, 5.0, 10.0]
    series = [style.dodged(values, number, 3) for number in range(3)]
    assert series[1] == values
    shifted = [places[0] for places in series]
    assert shifted == sorted(set(shifted))
    assert shifted[-1] - shifted[0] < 4 / 3
    assert style.dodged([7.0], 0, 1) == [7.0]


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1, 40, {"1", "10"}),
        (0.03, 3, {"0.1", "1"}),
        (20, 300, {"20", "50", "100", "200"}),
        (95, 130, {"100"}),
        (1e-4, 1e-2, {"0.001"}),
    ],
)
def test_log_axes_have_a_few_plain_ticks(low: float, high: float, labels: set[str]) -> None:
    with style.panel() as (figure, axes):
        axes.plot([low, high], [1, 2])
        style.log_axis(axes, "x", low, high)
        figure.draw_without_rendering()
    shown = [
        tick.label1.get_text()
        for tick in axes.xaxis.get_major_ticks()
        if axes.get_xlim()[0] <= tick.get_loc() <= axes.get_xlim()[1]
    ]
    assert labels <= set(shown)
    assert 1 <= len(shown) <= 7
