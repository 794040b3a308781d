"""The section on confirmed results."""

import pytest

from analysis.records.trials import OtherScore
from analysis.report.page import Page
from tests.analysis.made_up import sweep, trial
from tests.analysis.report.helpers import SPACE, build, names, section, tables, words


def test_intervals_over_seeds_and_tasks_are_separate(page: Page) -> None:
    confirmed = section(page, "Confirmed results")
    (found,) = tables(confirmed)
    row = dict(zip(found.columns, found.rows[0], strict=True))
    assert row["fresh seeds"] == "3"
    assert row["interval over test tasks"] == "± 1.0"
    # The mean of the three noise values is -1/3 of a point and their standard deviation 1.5275
    # points, which gives a half-width of 3.795 by Student's t with two degrees of freedom.
    assert row["selection bias"] == "0.3 points"
    assert row["validation accuracy %"].endswith("± 3.8")


def test_other_data_sets_have_a_column_each() -> None:
    accuracies = {"fc100": (0.30, 0.32), "omniglot": (0.40, None)}
    trials = [
        trial("confirm", seed, 0.5, seed=seed, test_value=0.4, test_interval=0.01,
              others={name: OtherScore(values[seed - 1], 0.01, "digest")
                      for name, values in accuracies.items()})
        for seed in (1, 2)
    ]  # fmt: skip
    trials.append(
        trial("confirm", 3, 0.4, seed=1, learner={"inner_steps": 9}, test_value=0.4,
              test_interval=0.01)
    )  # fmt: skip
    found, *_ = tables(section(build(sweep(trials)), "Confirmed results"))
    both, neither = (dict(zip(found.columns, row, strict=True)) for row in found.rows)
    # Half of the difference of two values, times Student's quantile for one degree of freedom.
    assert both["test accuracy on fc100 %"] == "31 ± 13"
    assert both["test accuracy on omniglot %"] == "40.0 (1 of 2 seeds)"
    assert neither["test accuracy on fc100 %"] == neither["test accuracy on omniglot %"] == "–"
    assert "trained on glyphs, and scored on test tasks of fc100, omniglot" in found.note


def confirming(single: float, *seeds: tuple[int, int]) -> str:
    """The finding for configs (inner steps, number of fresh seeds); every fresh seed gives 0.5."""
    trials = [trial("search", k, single, learner={"inner_steps": k}) for k, _ in seeds]
    trials += [
        trial("confirm", 10 * k + seed, 0.5, seed=seed, learner={"inner_steps": k},
              test_value=0.4, test_interval=0.01)
        for k, count in seeds for seed in range(1, count + 1)
    ]  # fmt: skip
    return section(build(sweep(trials)), "Confirmed results").finding


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ([(1, 2)], "on validation tasks. A"),
        ([(1, 2), (2, 2)], "; the best validation result of 2 configs."),
        ([(1, 2), (2, 1), (3, 2)], "the 2 configs with the most seeds, of 3 configs."),
        ([(1, 2), (2, 1)], "; of 2 configs, the one with the most seeds."),
    ],
)
def test_the_best_config_is_compared_with_those_with_equally_many_seeds(
    seeds: list[tuple[int, int]], said: str
) -> None:
    assert said in confirming(0.5, *seeds)


def test_selection_bias_is_stated_with_its_sign() -> None:
    assert "A single seed overstated the validation result by 3.0 points" in confirming(
        0.53, (1, 2)
    )
    assert "A single seed understated the validation result by 3.0 points" in confirming(
        0.47, (1, 2)
    )


def test_failure_of_all_fresh_seeds_is_stated() -> None:
    lost = [trial("confirm", n, None, seed=n, status="diverged") for n in range(1, 4)]
    found = section(build(sweep([trial("search", 0, 0.5), *lost])), "Confirmed results").finding
    assert found == "No config is confirmed: no trial with a fresh seed has a result (3 diverged)."


def test_several_configs_have_a_figure_and_a_table_of_settings() -> None:
    tested = {"test_value": 0.5, "test_interval": 0.01}
    of = sweep([
        trial("search", 0, 0.5, learner={"inner_steps": 2}),
        trial("confirm", 0, 0.6, seed=1, learner={"inner_steps": 1}, **tested),
        trial("confirm", 1, 0.5, seed=1, learner={"inner_steps": 2}, **tested),
    ], SPACE)  # fmt: skip
    settings = tables(section(build(of), "Confirmed results"))[1]
    assert settings.columns == ["config", "inner_steps"]
    assert settings.rows == [["not in the ranking", "1"], ["search 000", "2"]]
    assert "The same in all rows: inner_lr 1" in settings.note
    (figure,) = (figure for figure in build(of).figures if figure.name == "confirmed")
    (legend,) = figure.drawing.legends
    assert "validation, single seed" in [text.get_text() for text in legend.get_texts()]


def test_the_seeds_of_a_single_config_are_said_in_words() -> None:
    trials = [trial("search", 0, 0.5)]
    trials += [
        trial("confirm", n, 0.5 + 0.01 * n, seed=1 + n, test_value=0.4, test_interval=0.01)
        for n in range(2)
    ]
    page = build(sweep(trials, {"inner_lr": SPACE["inner_lr"]}))
    said = words(section(page, "Confirmed results"))
    assert "Settings of search 000: inner_lr 1." in said
    assert "Seed by seed: validation 50.0, 51.0; test 40.0, 40.0 %." in said
    assert "confirmed" not in names(page.figures)
    assert "confirmed" in names(page.in_words)
