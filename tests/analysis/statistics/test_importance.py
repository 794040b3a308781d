import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from scipy.stats import qmc

from analysis.records.trials import Trial
from analysis.statistics import importance
from analysis.statistics.importance import importances
from analysis.statistics.responses import PEAK_MEMORY, Response, quality
from memmeta.config import LearnerConfig
from memmeta.metric import ACCURACY, MSE
from sweeps.engine.study.dimension import dimension
from sweeps.engine.study.space import at
from tests.analysis.made_up import MIB, trial

RATES = {"low": 1e-3, "high": 1.0, "log": True}
SPACE = {name: dimension(name, RATES) for name in ("inner_lr", "outer_lr", "ridge")}
BOTH = ("PED-ANOVA", "fANOVA")


def explore(value: Callable[[dict[str, Any]], float], space: Mapping[str, Any]) -> list[Trial]:
    cube = qmc.Sobol(len(space), rng=0).random(128)
    designed = [at(point, space, LearnerConfig()) for point in cube]
    return [trial("explore", n, value(of), learner=of) for n, of in enumerate(designed)]


def values(
    trials: list[Trial], space: Mapping[str, Any], response: Response
) -> dict[str, Mapping[str, float | None]]:
    return {found.method: found.values for found in importances(trials, space, response)}


def test_both_methods_find_the_important_dimension() -> None:
    trials = explore(lambda of: math.log(of["outer_lr"]) + 0.1 * math.log(of["ridge"]), SPACE)
    found = values(trials, SPACE, quality(ACCURACY))
    assert tuple(found) == BOTH
    for method in BOTH:
        assert list(found[method]) == list(SPACE)
        assert found[method]["outer_lr"] == pytest.approx(1, abs=0.2)


def test_ped_anova_respects_the_direction_of_the_metric() -> None:
    def value(of: dict[str, Any]) -> float:
        # The response increases with inner_lr and decreases with ridge.
        return float(of["inner_lr"] > 0.4) - float(of["ridge"] > 0.4)

    trials = explore(value, SPACE)
    best = values(trials, SPACE, quality(ACCURACY))["PED-ANOVA"]
    assert max(best, key=lambda name: best[name] or 0) == "inner_lr"
    lowest = values(trials, SPACE, quality(MSE))["PED-ANOVA"]
    assert max(lowest, key=lambda name: lowest[name] or 0) == "ridge"


def test_fanova_sees_a_logarithmic_range_in_logarithms() -> None:
    def value(of: dict[str, Any]) -> float:
        # Two thirds of inner_lr's decades, a tenth of its range, and half of outer_lr's decades.
        return float(of["inner_lr"] < 0.1) + float(of["outer_lr"] > 10**-1.5)

    found = values(explore(value, SPACE), SPACE, quality(ACCURACY))["fANOVA"]
    variances = np.array([2 / 9, 1 / 4])
    shares = variances / variances.sum()
    assert found["inner_lr"] == pytest.approx(shares[0], abs=0.08)
    assert found["outer_lr"] == pytest.approx(shares[1], abs=0.08)


def test_fanova_has_no_importance_for_a_conditional_dimension() -> None:
    space = {
        "algorithm": dimension("algorithm", ["memory_reduced", "anil"]),
        "cg_steps": dimension("cg_steps", {"low": 1, "high": 20}),
        "norm": dimension("norm", ["batch"]),
    }
    found = values(explore(lambda of: of.get("cg_steps", 5), space), space, quality(ACCURACY))
    assert found["fANOVA"]["cg_steps"] is None
    assert found["fANOVA"]["norm"] == 0
    ped = found["PED-ANOVA"]
    assert max(ped, key=lambda name: ped[name] or 0) == "cg_steps"


def test_fanova_is_limited_to_the_first_configs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = explore(lambda of: of["ridge"] * of["inner_lr"], SPACE)
    first = importances(trials[:64], SPACE, quality(ACCURACY))
    monkeypatch.setattr(importance, "FOREST", 64)
    ped, forest = importances(trials, SPACE, quality(ACCURACY))
    assert forest.values == first[1].values
    assert "the first 64 configs" in forest.question
    assert "the first" not in first[1].question
    assert ped.values != first[0].values


def test_a_logarithmic_response_is_explained_in_logarithms() -> None:
    trials = [
        trial("explore", n, 0.5, learner=of, peak_memory_bytes=round(memory * MIB))
        for n, point in enumerate(qmc.Sobol(3, rng=0).random(128))
        for of in [at(point, SPACE, LearnerConfig())]
        for memory in [1000 * of["inner_lr"] * of["outer_lr"]]
    ]
    found = values(trials, SPACE, PEAK_MEMORY)["fANOVA"]
    # Additive in logarithms; over a third of the product's variance would be interaction.
    assert (found["inner_lr"] or 0) + (found["outer_lr"] or 0) > 0.85


def test_degenerate_responses_have_no_importance() -> None:
    constant = explore(lambda _: 0.5, SPACE)
    varied = explore(lambda of: of["ridge"], SPACE)
    lost = [trial("explore", n, None, status="diverged") for n in range(20)]
    elsewhere = [trial("search", n, n / 100) for n in range(20)]
    for trials in (constant, varied[:1], lost, elsewhere, []):
        for of in values(trials, SPACE, quality(ACCURACY)).values():
            assert dict(of) == dict.fromkeys(SPACE)


def test_importances_are_reproducible_and_keep_optunas_verbosity() -> None:
    trials = explore(lambda of: of["ridge"] * of["inner_lr"], SPACE)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    first = importances(trials, SPACE, quality(ACCURACY))
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
    optuna.logging.set_verbosity(optuna.logging.INFO)
    assert importances(trials, SPACE, quality(ACCURACY)) == first
