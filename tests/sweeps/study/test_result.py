"""The result of a trial."""

import json

from sweeps.engine.study.result import reported_result


def test_keys_that_tune_adds_are_dropped():
    reports = [{"step": 5, "time": 1.0, "metrics": {"val_accuracy": 0.5}}]
    result = {"status": "complete", "step": 5, "metrics": {}, "reports": reports, "gpus": 0.5}
    reported = {"trial_id": "a", "done": True, **result, "config": {}}
    assert reported_result(reported) == result


def test_the_stored_order_does_not_depend_on_the_order_of_the_report():
    names = ["status", "message", "step", "metrics", "reports", "peak_memory_bytes", "notes"]
    reported = dict.fromkeys(reversed(names))
    assert [*json.loads(json.dumps(reported_result(reported)))] == names
