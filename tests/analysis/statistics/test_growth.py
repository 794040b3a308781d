"""Growth with the inner steps: exact models, another regression, error rates and real peaks."""

import csv
import dataclasses
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit
from scipy.stats import t

from analysis.records.trials import Trial
from analysis.statistics.growth import MARGIN, Growth, growth
from memmeta.memory.prediction import predict_peak_memory
from sweeps.engine.study.outcome import Stage
from tests import ROOT
from tests.analysis.made_up import MIB, trial

STEPS = (1, 5, 9)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Turn warnings about degenerate regressions into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def with_memory(one: Trial, mib: float) -> Trial:
    return dataclasses.replace(one, peak_memory_bytes=round(mib * MIB))


def grid(batches: tuple[int, ...] = (2, 4, 8), **learner: Any) -> list[Trial]:
    """Every combination of STEPS and `batches`."""
    learners = [{"inner_steps": k, "task_batch": b, **learner} for b in batches for k in STEPS]
    return [trial("grid", index, 0.5, learner=own) for index, own in enumerate(learners)]


def test_tuned_fields_are_not_controlled_for() -> None:
    trials = [
        with_memory(
            trial("grid", index, 0.5, learner={"inner_steps": k, "inner_lr": 1 / k, "cg_steps": n}),
            mib=100 + 10 * k,
        )
        for index, (k, n) in enumerate((k, n) for k in STEPS for n in (1, 5))
    ]
    (held,) = growth(trials)
    assert held.reason == "inner_steps is confounded with other varied settings"
    (free,) = growth(trials, tuned=["inner_lr"])
    assert free.verdict == "grows"


def design(rng: np.random.Generator, count: int = 30) -> list[Trial]:
    """Explore trials that differ in all settings, one of them a choice."""
    batches, ridges = rng.integers(2, 33, count), 10 ** rng.uniform(-4, 0, count)
    # Wide enough for a logarithm for all other values.
    batches[:2], ridges[:2] = (2, 32), (1e-4, 1.0)
    return [
        trial(
            "explore",
            index,
            0.5,
            learner={
                "inner_steps": int(rng.integers(1, 41)),
                "task_batch": int(batches[index]),
                "ridge": float(ridges[index]),
                "inner_lr": float(rng.uniform(0.5, 1.5)),
                "norm": ["batch", "group"][rng.integers(2)],
            },
        )
        for index in range(count)
    ]


def log_memory(trials: list[Trial]) -> np.ndarray:
    return np.log([(one.peak_memory_bytes or 0) / MIB for one in trials])


def field(trials: list[Trial], name: str) -> np.ndarray:
    return np.array([getattr(one.config.learner, name) for one in trials])


def fitted(steps: np.ndarray, logs: np.ndarray, controls: np.ndarray) -> list[float]:
    """Growth over the range with its 95 % and 90 % intervals, by a joint fit of all parameters."""
    x = (steps - steps.min()) / np.ptp(steps)

    def model(_: object, s: float, *coefficients: float) -> np.ndarray:
        # The optimiser would pass through negative 1 + s x.
        return np.log(np.maximum(1 + s * x, 1e-9)) + controls @ np.array(coefficients)

    def slopes(_: object, s: float, *__: float) -> np.ndarray:
        return np.column_stack([x / np.maximum(1 + s * x, 1e-9), controls])

    start = [0.1, *np.linalg.lstsq(controls, logs)[0]]
    best, covariance = curve_fit(
        model, x, logs, p0=start, jac=slopes, xtol=1e-14, ftol=1e-14, gtol=1e-14
    )
    freedom = len(logs) - len(start)
    limits = [t.ppf(share, freedom) for share in (0.025, 0.975, 0.05, 0.95)]
    return [best[0] + limit * math.sqrt(covariance[0, 0]) for limit in (0.0, *limits)]


def check(found: Growth, steps: np.ndarray, logs: np.ndarray, controls: np.ndarray) -> None:
    assert found.total is not None
    assert found.confidence is not None
    assert found.equivalence is not None
    numbers = [found.total, *found.confidence, *found.equivalence]
    np.testing.assert_allclose(numbers, fitted(steps, logs, controls), rtol=1e-4, atol=1e-5)


def noisy(trials: list[Trial], rng: np.random.Generator) -> list[Trial]:
    """Growth of up to three times over the range, with noise of a tenth."""
    steps = field(trials, "inner_steps")
    growing = 1 + rng.uniform(-0.3, 3) * (steps - steps.min()) / np.ptp(steps)
    sizes = 1e4 * growing * np.exp(rng.normal(scale=0.1, size=len(trials)))
    return [with_memory(one, mib) for one, mib in zip(trials, sizes, strict=True)]


@given(per_step=st.floats(-0.1, 2), stage=st.sampled_from(["grid", "explore"]))
def test_an_exact_model_is_recovered(per_step: float, stage: Stage) -> None:
    trials = [
        with_memory(
            dataclasses.replace(one, stage=stage),
            1e6
            * one.config.learner.task_batch
            * (1 + per_step * (one.config.learner.inner_steps - 1)),
        )
        for one in grid()
    ]
    (found,) = growth(trials)
    assert (found.label, found.trials) == ("memory_reduced, linear head", 9)
    assert (found.lowest, found.highest) == (1, 9)
    # The geometric mean of the task batches 2, 4 and 8 is 4.
    assert found.mib_per_step == pytest.approx(4e6 * per_step, rel=1e-6, abs=1e-2)
    assert found.total == pytest.approx(8 * per_step, abs=1e-8)
    assert found.confidence == pytest.approx((8 * per_step,) * 2, abs=1e-6)
    assert found.reason is None


@given(seed=st.integers(0, 2**32 - 1))
def test_a_grid_has_a_constant_per_combination(seed: int) -> None:
    trials = noisy(grid(), np.random.default_rng(seed))
    (found,) = growth(trials)
    batches = field(trials, "task_batch")
    check(
        found,
        field(trials, "inner_steps"),
        log_memory(trials),
        np.array([batches == level for level in (2, 4, 8)]).T.astype(float),
    )


@given(seed=st.integers(0, 2**32 - 1))
def test_explore_has_two_terms_per_number(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trials = noisy(design(rng), rng)
    (found,) = growth(trials)
    # Task batch and ridge span a factor of ten, the inner step size does not.
    numbers = [
        np.log(field(trials, "task_batch")),
        np.log(field(trials, "ridge")),
        field(trials, "inner_lr"),
    ]
    terms = [power for number in numbers for power in (number, number**2)]
    controls = np.column_stack([np.ones(30), field(trials, "norm") == "batch", *terms])
    check(found, field(trials, "inner_steps"), log_memory(trials), controls)


def test_trials_that_differ_only_in_the_seed_are_one_observation() -> None:
    trials = noisy(grid(), np.random.default_rng(0))
    twice = [
        dataclasses.replace(one, config=one.config.model_copy(update={"seed": seed}))
        for seed in (0, 1)
        for one in trials
    ]
    (once,), (found,) = growth(trials), growth(twice)
    assert found.trials == 18
    assert found.confidence == pytest.approx(once.confidence)


def with_noise(trials: list[Trial], total: float, noise: float, seed: int) -> Iterator[Growth]:
    """Results of 1000 replicates whose memory grows by `total` over the range."""
    rng = np.random.default_rng(seed)
    steps = field(trials, "inner_steps")
    true = 10 + np.log1p(total * (steps - steps.min()) / np.ptp(steps))
    for _ in range(1000):
        logs = true + noise * rng.normal(size=len(trials))
        yield growth(
            [with_memory(one, math.exp(log)) for one, log in zip(trials, logs, strict=True)]
        )[0]


@pytest.mark.thorough
@pytest.mark.parametrize("trials", [grid(), design(np.random.default_rng(1), count=20)])
def test_the_equivalence_test_has_its_nominal_level(trials: list[Trial]) -> None:
    verdicts, covered = [], []
    for found in with_noise(trials, MARGIN, 0.02, seed=0):
        assert found.confidence is not None
        verdicts.append(found.verdict == "does not grow")
        covered.append(found.confidence.low <= MARGIN <= found.confidence.high)
    # Within about 3.5 standard errors.
    assert 0.026 <= np.mean(verdicts) <= 0.074
    assert 0.926 <= np.mean(covered) <= 0.974


@pytest.mark.parametrize(
    ("total", "noise", "verdict"),
    [
        (0.0, 0.0, "does not grow"),
        (0.049, 0.0, "does not grow"),
        (0.051, 0.0, "grows"),
        (3.0, 0.01, "grows"),
        (0.0, 0.001, "does not grow"),
        (0.0, 0.3, "undecided"),
        (-0.5, 0.0, "undecided"),
    ],
)
def test_verdicts_follow_from_the_intervals(total: float, noise: float, verdict: str) -> None:
    found = next(with_noise(grid(), total, noise, seed=0))
    assert (found.verdict, found.reason) == (verdict, None)


def test_significant_growth_within_the_margin_does_not_count() -> None:
    found = next(with_noise(grid(), 0.02, 0.001, seed=0))
    assert found.confidence is not None
    assert found.confidence.low > 0
    assert found.verdict == "does not grow"


@pytest.mark.parametrize(
    ("trials", "reason"),
    [
        (grid()[::3], "all trials have inner_steps 1"),
        (grid()[::4], "inner_steps is confounded with other varied settings"),
        (grid(batches=(2,))[:2], "too few trials for the number of varied settings"),
    ],
)
def test_growth_that_cannot_be_estimated_is_undecided(trials: list[Trial], reason: str) -> None:
    (found,) = growth(trials)
    assert (found.verdict, found.reason) == ("undecided", reason)
    numbers = (found.mib_per_step, found.total, found.confidence, found.equivalence)
    assert numbers == (None,) * 4


def test_an_inner_step_size_that_does_not_apply_is_controlled_for() -> None:
    learners: list[dict[str, Any]] = [
        {"inner_steps": k, "inner_lr": lr} for k in (0, 2, 4) for lr in (0.1, 1.0)
    ]
    trials = [
        with_memory(trial("explore", n, 0.5, learner=own), 1e6 * (1 + 0.1 * own["inner_steps"]))
        for n, own in enumerate(learners)
    ]
    (found,) = growth(trials)
    assert found.total == pytest.approx(4 * 0.1)


def test_algorithms_are_separate_and_only_complete_trials_count() -> None:
    trials = [
        *grid(),
        *grid(algorithm="anil", head="mlp"),
        *grid(algorithm="anil", feature_reuse=False),
        *grid(algorithm="maml", first_order=True),
        *(
            dataclasses.replace(one, status="out_of_memory", peak_memory_bytes=None)
            for one in grid(algorithm="maml")
        ),
    ]
    assert [found.label for found in growth(trials)] == [
        "memory_reduced, linear head",
        "anil cached, mlp head",
        "anil naive, linear head",
        "maml first order, linear head",
    ]
    lost = [dataclasses.replace(trials[0], status="diverged"), *trials[1:9]]
    assert growth(lost)[0].trials == 8


def real(**learner: Any) -> tuple[Growth, Growth]:
    """Growth of predicted peaks, which equal measured ones to the byte, as grid and as explore."""
    trials = [
        dataclasses.replace(one, peak_memory_bytes=predict_peak_memory(one.config))
        for one in grid(batches=(1, 2), filters=4, **learner)
    ]
    explored = [dataclasses.replace(one, stage="explore") for one in trials]
    return growth(trials)[0], growth(explored)[0]


def test_the_peak_of_memory_reduced_does_not_grow() -> None:
    for found in real():
        assert found.verdict == "does not grow"
        assert found.total == pytest.approx(0, abs=1e-6)


@pytest.mark.thorough
def test_the_peak_of_naive_anil_grows() -> None:
    for found in real(algorithm="anil", feature_reuse=False):
        assert found.verdict == "grows"
        assert found.total is not None
        assert found.total > 1


def published(algorithm: str, reuse: bool, image_size: int) -> list[tuple[int, int]]:
    """Inner steps and peaks in bytes from a row of docs/memory.md."""
    path = ROOT / "docs" / "memory.csv"
    with path.open(newline="") as file:
        return [
            (int(row["inner_steps"]), int(row["peak_bytes"]))
            for row in csv.DictReader(file)
            if (row["algorithm"], row["feature_reuse"]) == (algorithm, str(reuse))
            and (row["image_size"], row["norm"], row["chunk"]) == (str(image_size), "batch", "")
        ]


@pytest.mark.parametrize("image_size", [32, 84])
@pytest.mark.parametrize("some", [(1, 5, 20), (1, 5, 10, 20), (1, 5, 10, 15, 20)])
@pytest.mark.parametrize(
    ("algorithm", "reuse"), [("anil", False), ("itd_bio", False), ("maml", True)]
)
def test_a_graph_kept_for_every_inner_step_grows(
    algorithm: str, reuse: bool, some: tuple[int, ...], image_size: int
) -> None:
    rows = [row for row in published(algorithm, reuse, image_size) if row[0] in some]
    assert len(rows) == len(some)
    (found,) = growth(
        trial("grid", n, 0.5, learner={"inner_steps": k}, peak_memory_bytes=peak)
        for n, (k, peak) in enumerate(rows)
    )
    (first, least), (last, most) = rows[0], rows[-1]
    assert found.verdict == "grows"
    assert found.total == pytest.approx(most / least - 1, rel=0.02)
    assert found.mib_per_step == pytest.approx((most - least) / (last - first) / MIB, rel=0.02)
