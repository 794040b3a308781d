"""Saved views and descriptions for the MLflow UI."""

import json

import pytest
from mlflow import MlflowClient

from memmeta.config import LearnerConfig
from memmeta.metric import ACCURACY, MSE
from sweeps.engine.study.outcome import TAGS
from sweeps.engine.tracking import views
from tests.sweeps.ledger.test_ledger import STUDY, open_ledger
from tests.sweeps.tracking.driving import drive, open_tracker, told

VIEW = "mlflow.sharedViewState."
NOTE = "mlflow.note.content"


def experiment(client):
    return client.get_experiment_by_name(STUDY.name)


def runs(client, kind="trial"):
    return client.search_runs([experiment(client).experiment_id], f"tags.`{TAGS.kind}` = '{kind}'")


def view_tags(client):
    return {k: v for k, v in experiment(client).tags.items() if k.startswith(VIEW)}


def state(client):
    """The content of the only view of an experiment."""
    (tag,) = view_tags(client).values()
    return json.loads(json.loads(tag)["state"])


def test_a_view_selects_the_trials_of_its_sweep_best_first(tmp_path, uri):
    drive(tmp_path / "ann", uri, 0.1, 0.3, 0.2)
    client = MlflowClient(uri)
    view = state(client)
    drive(tmp_path / "ben", uri, 0.9)
    ids = [experiment(client).experiment_id]
    assert not view["orderByAsc"]
    found = client.search_runs(ids, view["searchFilter"], order_by=[f"{view['orderByKey']} DESC"])
    assert [run.data.metrics["val_accuracy"] for run in found] == [0.3, 0.2, 0.1]
    columns = [column.replace("`", "").split(".") for column in view["selectedColumns"]]
    assert ["params", "inner_lr"] in columns
    shown = {name for kind, name in columns if kind == "metrics"}
    assert shown - {"test_accuracy"} <= found[0].data.metrics.keys()
    (chart,) = view["compareRunCharts"]
    assert chart["selectedParams"] == ["inner_lr"]
    assert chart["selectedMetrics"][-1] == "val_accuracy"


def test_links_lead_to_the_view(tmp_path, uri):
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    assert tracker.addresses is None
    ticket = ledger.begin("explore", 0, {"inner_lr": 0.1}, 0)
    ledger.report(ticket, told([0.5], "complete"))
    tracker.close(ledger.entries(), True, {})
    client = MlflowClient(uri)
    (tag,) = view_tags(client)
    (sweep,) = runs(client, "sweep")
    for text in (*tracker.addresses, sweep.data.tags[NOTE], experiment(client).tags[NOTE]):
        assert f"viewStateShareKey={tag.removeprefix(VIEW)}" in text
        assert f"#/experiments/{experiment(client).experiment_id}/runs?" in text
        assert "workflowType=machine_learning" in text


def test_continuing_a_sweep_changes_its_view_only_for_new_params(tmp_path, uri):
    drive(tmp_path, uri, 0.1)
    client = MlflowClient(uri)
    before = view_tags(client)
    drive(tmp_path, uri, 0.2)
    assert view_tags(client) == before
    ledger = open_ledger(tmp_path)
    tracker = open_tracker(ledger, uri, tmp_path)
    ticket = ledger.begin("grid", 0, {"cg_steps": 3}, 0)
    tracker.send(ledger.report(ticket, told([0.3], "complete")))
    tracker.close(ledger.entries(), True, {})
    assert view_tags(client).keys() == before.keys()
    assert state(client)["compareRunCharts"][0]["selectedParams"] == ["inner_lr", "cg_steps"]


def test_old_views_are_deleted_and_those_of_users_are_kept(tmp_path, uri, monkeypatch):
    monkeypatch.setattr(views, "_MOST_VIEWS", 2)
    client = MlflowClient(uri)
    drive(tmp_path / "0", uri, 0.1)
    (oldest,) = view_tags(client)
    client.set_experiment_tag(experiment(client).experiment_id, f"{VIEW}mine", "{}")
    for name in "12":
        drive(tmp_path / name, uri, 0.1)
    left = view_tags(client).keys()
    assert len(left) == 3
    assert f"{VIEW}mine" in left
    assert oldest not in left
    drive(tmp_path / "0", uri, 0.2)
    assert oldest in view_tags(client)


@pytest.mark.parametrize(("metric", "ascending"), [(ACCURACY, False), (MSE, True)])
def test_the_best_trial_comes_first_whatever_is_better(uri, metric, ascending):
    client = MlflowClient(uri)
    number = client.create_experiment(STUDY.name)
    views.save_view(client, experiment(client), client.create_run(number), metric, ["ridge"])
    assert state(client)["orderByAsc"] is ascending


def test_a_view_of_all_fields_fits_into_a_tag(uri):
    client = MlflowClient(uri)
    number = client.create_experiment(STUDY.name)
    run = client.create_run(number)
    views.save_view(client, experiment(client), run, ACCURACY, LearnerConfig.model_fields)
    (tag,) = view_tags(client).values()
    assert len(tag) < 5000


def test_the_sweep_and_its_trials_have_notes_and_the_best_result(tmp_path, uri):
    drive(tmp_path, uri, 0.1, 0.3)
    client = MlflowClient(uri)
    (sweep,) = runs(client, "sweep")
    assert "explore 001" in sweep.data.tags[NOTE]
    assert "30.0 ± 1.0 %" in sweep.data.tags[NOTE]
    best = json.loads(sweep.data.tags[TAGS.best])
    assert best == {"trial": "explore 001", "inner_lr": 1.1}
    for trial in runs(client):
        assert f"/runs/{sweep.info.run_id})" in trial.data.tags[NOTE]
        assert "Stage explore" in trial.data.tags[NOTE]


def test_notes_do_not_grow_with_the_number_of_trials(tmp_path, uri):
    drive(tmp_path, uri, 0.3)
    client = MlflowClient(uri)
    before = [run.data.tags[NOTE] for run in runs(client, "sweep")]
    tags = experiment(client).tags
    drive(tmp_path, uri, *[0.1] * 5)
    assert [run.data.tags[NOTE] for run in runs(client, "sweep")] == before
    assert experiment(client).tags == tags


def test_older_runs_get_notes_and_are_otherwise_not_changed(tmp_path, uri):
    drive(tmp_path, uri, 0.1)
    client = MlflowClient(uri)
    number = experiment(client).experiment_id
    for tag in (NOTE, *view_tags(client)):
        client.delete_experiment_tag(number, tag)
    (sweep,) = runs(client, "sweep")
    client.set_tag(sweep.info.run_id, NOTE, "[Compare the trials](#/compare-runs?runs=...)")
    (trial,) = runs(client)
    client.delete_tag(trial.info.run_id, NOTE)
    drive(tmp_path, uri)
    (sweep,), (after,) = runs(client, "sweep"), runs(client)
    assert "best first" in sweep.data.tags[NOTE]
    assert "best first" in experiment(client).tags[NOTE]
    assert view_tags(client)
    assert after.data.tags == trial.data.tags | {NOTE: after.data.tags[NOTE]}
    assert (after.info.end_time, after.data.metrics) == (trial.info.end_time, trial.data.metrics)


@pytest.mark.parametrize("text", ["", "my words"])
def test_notes_of_users_are_kept(tmp_path, uri, text):
    drive(tmp_path, uri, 0.1)
    client = MlflowClient(uri)
    client.set_experiment_tag(experiment(client).experiment_id, NOTE, text)
    for run in (*runs(client), *runs(client, "sweep")):
        client.set_tag(run.info.run_id, NOTE, text)
    drive(tmp_path, uri)
    assert experiment(client).tags[NOTE] == text
    for run in (*runs(client), *runs(client, "sweep")):
        assert run.data.tags[NOTE] == text
