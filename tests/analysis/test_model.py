"""The command that is advised for a model."""

from pathlib import Path

from analysis.model import command_for
from memmeta.config import DataConfig
from tests.analysis.made_up import sweep, trial
from tests.memmeta.test_main import parse


def test_a_regression_is_evaluated_and_a_classifier_predicts():
    waves = DataConfig(name="sinusoid", ways=1)
    for data, name in ((waves, "evaluate"), (DataConfig(name="glyphs"), "predict")):
        learner = {"backbone": "mlp"} if data is waves else {}
        one = sweep([trial("confirm", 0, 0.5, data=data, learner=learner)])
        words = command_for(Path("model.pt"), one).split()
        assert words[:3] == ["memmeta", name, "model.pt"]
        parse(words[1:])
