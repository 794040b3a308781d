from analysis.report.settings import settings
from tests.analysis.made_up import trial


def test_settings_that_are_the_same_have_no_column():
    trials = [
        trial("explore", n, 0.5, learner={"inner_lr": 0.1 * n, "ridge": 1e-3, "cg_steps": n})
        for n in (1, 2)
    ]
    shown = settings(trials, ["inner_lr", "ridge", "cg_steps", "inner_steps"])
    assert shown.names == ["inner_lr", "cg_steps"]
    assert shown.rows == [["0.1", "1"], ["0.2", "2"]]
    ridge, steps = trials[0].config.learner.ridge, trials[0].config.learner.inner_steps
    assert shown.same == f"The same in all rows: ridge {ridge}, inner_steps {steps}."


def test_without_such_settings_there_is_no_sentence():
    trials = [trial("explore", n, 0.5, learner={"cg_steps": n}) for n in (1, 2)]
    assert settings(trials, ["cg_steps"]).same == ""
