"""Modes of PyTorch that the caller has turned on. They affect neither numbers nor memory."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from memmeta.config import LearnerConfig
from memmeta.data import load_dataset
from memmeta.fit import train, train_run
from memmeta.memory import prediction
from memmeta.memory.prediction import predict_peak_memory
from memmeta.run import load


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float64": lambda: default_dtype(torch.float64),
    "meta": lambda: torch.device("meta"),
}


def modes():
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
    )


def numbers(config, data_root, path):
    """Everything that a run computes, from loading its data to predictions of the saved model."""
    data = load_dataset("glyphs", data_root)
    run = train_run(config, data, device="cpu", progress=False)
    run.save(path)
    loaded = load(path, device="cpu")
    images = data.test.images
    return (
        [report._replace(time=0) for report in run.reports],
        run.peak_memory,
        run.evaluate("test", 3),
        loaded.adapt(images[[0, 25]], ["a", "b"]).predict_proba(images[:7]).tolist(),
    )


@pytest.mark.parametrize("mode", MODES)
def test_classification_computes_the_same(run, data_root, tmp_path, mode):
    expected = numbers(run, data_root, tmp_path / "model.pt")
    with MODES[mode]():
        before = modes()
        assert numbers(run, data_root, tmp_path / "model.pt") == expected
        assert modes() == before


@pytest.mark.parametrize("mode", MODES)
def test_regression_computes_the_same(mode):
    def predicted():
        learner = LearnerConfig(algorithm="maml", backbone="mlp", inner_steps=2)
        budget = {"iterations": 2, "evaluations": 1, "val_tasks": 2}
        run = train(learner, load_dataset("sinusoid"), **budget, device="cpu", progress=False)
        x = np.linspace(-5, 5, 10)
        return run.adapt_regression(x, np.sin(x)).predict([0.0, 0.5]).tolist()

    expected = predicted()
    with MODES[mode]():
        assert predicted() == expected


@pytest.mark.parametrize("mode", MODES)
def test_memory_is_predicted_the_same(run, mode):
    expected = predict_peak_memory(run)
    prediction._step_peaks.cache_clear()
    with MODES[mode]():
        assert predict_peak_memory(run) == expected
