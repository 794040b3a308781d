"""The ledger on real journals and databases. A driver dies by never using its ledger again."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution

from memmeta.config import DataConfig, LearnerConfig, TrainingConfig
from memmeta.errors import InputError
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.opening import sweep_lock
from sweeps.engine.study import Study

STUDY = Study(name="s", data=DataConfig(), training=TrainingConfig(iterations=10), trials=4)


def open_ledger(folder, study=STUDY, seed=0, **more):
    return Ledger(study, seed, Path(folder), **more)


def result(accuracy, status="complete", reports=1, peak=100):
    metrics = {"val_accuracy": accuracy, "val_interval": 0.01}
    return {
        "status": status,
        "step": 10,
        "metrics": metrics,
        "reports": [{"step": 5, "time": 1.0, "metrics": metrics}] * reports,
        "peak_memory_bytes": peak,
    }


def failure(status):
    return {"status": status, "step": 3, "metrics": {}, "reports": [], "peak_memory_bytes": None}


def begin(ledger, stage="explore", index=0):
    """Start a trial. The first one of a stage records the stage's settings."""
    return ledger.begin(stage, index, {"inner_lr": 0.5}, seed=0)


def test_results_are_there_after_reopening(tmp_path):
    ledger = open_ledger(tmp_path)
    ticket = ledger.propose()
    ledger.report(ticket, result(0.5))
    (found,) = open_ledger(tmp_path).entries()
    assert found.run == ticket.run
    assert found.result == result(0.5)
    assert (found.name, found.status) == ("search 000", "complete")


def test_a_database_records_the_same_as_a_journal(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    ledger = open_ledger(tmp_path, url=url)
    done, open_ = ledger.propose(), ledger.propose()
    ledger.report(done, result(0.5))
    found = open_ledger(tmp_path, url=url).entries()
    assert [entry.status for entry in found] == ["complete", "interrupted"]
    assert [entry.run for entry in found] == [done.run, open_.run]
    assert not (tmp_path / "journal.log").exists()


def test_a_database_belongs_to_one_folder(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    open_ledger(ours, url=url, stages=("search",)).propose()
    with pytest.raises(InputError, match="belongs to another folder than"):
        open_ledger(theirs, url=url)
    # The refused ledger has not changed the database.
    (open_,) = open_ledger(ours.rename(tmp_path / "moved"), url=url).entries()
    assert open_.status == "interrupted"
    assert open_ledger(theirs).entries() == []


def test_a_sweep_has_one_record(tmp_path):
    url = f"sqlite:///{tmp_path}/ledger.db"
    for name, first, second, said in (
        ("journal", None, url, "leave ledger out"),
        ("database", url, None, "give its address .*ledger"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        begin(open_ledger(folder, url=first))
        with pytest.raises(InputError, match=said):
            open_ledger(folder, url=second)
        open_ledger(folder, url=first)


def test_trials_keep_the_settings_with_which_their_stage_started(tmp_path):
    ledger = open_ledger(tmp_path, stages=("explore",))
    ticket = ledger.begin("explore", 0, {"inner_lr": 0.5}, seed=4)
    ledger.report(ticket, result(0.5))
    other = STUDY.changed(
        learner=LearnerConfig(filters=7),
        grid={"ridge": [0.1]},
    )
    (found,) = open_ledger(tmp_path, other, stages=("grid",)).entries()
    assert found.run == ticket.run


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////proc/no/ledger.db"])
def test_a_database_that_cannot_be_opened_is_one_line(tmp_path, url):
    with pytest.raises(InputError, match="cannot be opened as the record of a sweep"):
        open_ledger(tmp_path, url=url)


def test_an_interrupted_trial_keeps_its_index_and_result(tmp_path):
    ledger = open_ledger(tmp_path)
    ticket = ledger.propose()
    ledger.report(ticket, result(0.5, status="running"))
    assert ledger.entries()[0].status == "running"
    ledger = open_ledger(tmp_path)
    (entry,) = ledger.entries()
    assert (entry.status, entry.index, entry.result["status"]) == ("interrupted", 0, "running")
    again = ledger.begin(entry.stage, entry.index, entry.params, entry.run.seed)
    assert again.run == ticket.run
    assert [entry.status for entry in ledger.entries()] == ["running"]


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["propose", "resume", "report", "tell", "die"]), max_size=25))
def test_nothing_is_lost_and_nothing_runs_twice(events):
    with tempfile.TemporaryDirectory() as folder:
        ledger, running, told, begun = open_ledger(folder), [], {}, {}
        for event in events:
            interrupted = [e for e in ledger.entries() if e.status == "interrupted"]
            if event == "propose":
                running.append(ledger.propose())
                begun[running[-1].slot] = running[-1].run
            elif event == "resume" and interrupted:
                entry = interrupted[0]
                assert entry.slot not in told
                running.append(ledger.begin("search", entry.index, entry.params, entry.run.seed))
            elif event == "report" and running:
                ledger.report(running[0], result(0.4, status="running"))
            elif event == "tell" and running:
                ticket = running.pop(0)
                ledger.report(ticket, result(0.5))
                told[ticket.slot] = ticket.run
            elif event == "die":
                ledger, running = open_ledger(folder), []
        entries = open_ledger(folder).entries()
        assert {entry.slot: entry.run for entry in entries} == begun
        assert {entry.slot: entry.run for entry in entries if entry.finished} == told


@settings(max_examples=40)
@given(st.data())
def test_a_driver_killed_during_any_write_loses_nothing(data):
    """A killed driver may leave any prefix of the journal, including torn lines."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(folder)
        for accuracy in (0.3, 0.5):
            ticket = ledger.propose()
            ledger.report(ticket, result(accuracy, status="running"))
            ledger.report(ticket, result(accuracy))
        journal = Path(folder) / "journal.log"
        whole = journal.read_bytes()
        proposed = [entry.params for entry in ledger.entries()]
        cut = data.draw(st.integers(0, len(whole)))
        journal.write_bytes(whole[:cut])
        (Path(folder) / "journal.log.lock").symlink_to(journal)  # as Optuna locks
        ledger = open_ledger(folder)
        for accuracy in (0.3, 0.5):
            unfinished = [entry for entry in ledger.entries() if not entry.finished]
            if unfinished:
                e = unfinished[0]
                ticket = ledger.begin(e.stage, e.index, e.params, e.run.seed)
                ledger.report(ticket, result(0.3 if e.index == 0 else 0.5))
            elif len(ledger.entries()) < 2:
                ledger.report(ledger.propose(), result(accuracy))
        again = open_ledger(folder).entries()
        assert [entry.params for entry in again] == proposed
        assert [entry.status for entry in again] == ["complete", "complete"]


def test_infeasible_trials_are_finished_but_not_ranked(tmp_path):
    ledger = open_ledger(tmp_path)
    for status in ("diverged", "complete", "out_of_memory"):
        told = result(0.4) if status == "complete" else failure(status)
        ledger.report(ledger.propose(), told)
    ledger = open_ledger(tmp_path)
    assert len(ledger.finished()) == 3
    assert [entry.status for entry in ledger.ranking()] == ["complete"]


def test_the_sampler_learns_where_trials_diverge(tmp_path):
    # Accuracy increases with inner_lr up to 0.5, and all trials above 0.5 diverge. The optimum is
    # on the border, so trials fall on both sides of it. Without the failures, the sampler would
    # choose a value above 0.5 five times out of six.
    ledger = open_ledger(tmp_path, STUDY.changed(space={"inner_lr": FloatDistribution(0.1, 1.0)}))
    for _ in range(60):
        ticket = ledger.propose()
        lr = ticket.run.learner.inner_lr
        ledger.report(ticket, failure("diverged") if lr > 0.5 else result(lr))
    late = ledger.finished()[30:]
    feasible = [entry for entry in late if entry.status == "complete"]
    assert len(feasible) > len(late) / 3


def test_reopening_does_not_change_the_proposals(tmp_path):
    proposed = []
    for folder, reopen in ((tmp_path / "a", False), (tmp_path / "b", True)):
        folder.mkdir()
        ledger, params = open_ledger(folder), []
        for number in range(14):  # more than TPE's random trials
            if reopen:
                ledger = open_ledger(folder)
            ticket = ledger.propose()
            ledger.report(ticket, result(number / 20))
            params.append(ticket.run)
        proposed.append(params)
    assert proposed[0] == proposed[1]
    assert len({run.key for run in proposed[0]}) == 14


def test_search_starts_from_the_points_of_explore(tmp_path):
    study = STUDY.changed(space={"inner_lr": FloatDistribution(0.1, 1.0)})
    ledger = open_ledger(tmp_path, study)
    for index in range(20):
        lr = 0.1 + 0.045 * index
        told = failure("diverged") if lr > 0.9 else result(1 - abs(lr - 0.3))
        ledger.report(ledger.begin("explore", index, {"inner_lr": lr}, 0), told)
    near = 0
    for _ in range(10):
        ticket = ledger.propose()
        near += abs(ticket.run.learner.inner_lr - 0.3) < 0.15
        ledger.report(ticket, result(1 - abs(ticket.run.learner.inner_lr - 0.3)))
    assert near >= 7  # 3 or 4 by chance
    ledger = open_ledger(tmp_path, study)
    assert len(ledger.finished("explore")) == 20
    assert len(ledger.finished("search")) == 10
    assert ledger.propose().index == 10


def test_trials_that_asha_stops_are_pruned_with_their_last_value(tmp_path):
    ledger = open_ledger(tmp_path, STUDY.changed(asha=True))
    statuses = []
    for accuracy in (0.9, 0.8, 0.7, 0.2, 0.1, 0.95):
        entry = ledger.report(ledger.propose(), result(accuracy, status="running"))
        statuses.append(entry.status)
    assert statuses == ["running", "pruned", "pruned", "pruned", "pruned", "running"]
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal.log"))
    )
    book = optuna.load_study(study_name=f"{STUDY.sweep_name(0)}/search", storage=storage)
    assert book.trials[3].state is optuna.trial.TrialState.PRUNED
    assert book.trials[3].value == 0.2
    assert ledger.ranking() == []


def test_memory_can_be_an_objective_and_a_limit(tmp_path):
    study = STUDY.changed(objective=("accuracy", "memory"), memory_limit=500)
    ledger = open_ledger(tmp_path, study)
    for accuracy, peak in ((0.5, 100), (0.6, 200), (0.4, 150), (0.9, 501), (0.7, 500)):
        ledger.report(ledger.propose(), result(accuracy, peak=peak))
    assert [entry.index for entry in open_ledger(tmp_path, study).ranking()] == [4, 1, 0]


def test_other_settings_are_refused_with_the_differences(tmp_path):
    begin(open_ledger(tmp_path))
    other = STUDY.changed(space=dict(STUDY.space) | {"ridge": FloatDistribution(0.1, 0.2)})
    with pytest.raises(InputError, match=r"space\.ridge\.high was 1\.0, is 0\.2.*new version"):
        open_ledger(tmp_path, other)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {"ridge": {"low": 0.1, "high": 1.0}}}, "space.inner_lr was "),
        ({"learner": LearnerConfig(filters=7)}, "learner.filters was 64, is 7"),
        ({"training": TrainingConfig(iterations=10, evaluations=2)}, "training.evaluations was 4"),
    ],
)
@pytest.mark.parametrize("stage", ["search", "confirm"])
def test_stages_that_depend_on_explore_refuse_other_settings(tmp_path, stage, changes, said):
    begin(open_ledger(tmp_path, stages=("explore",)))
    with pytest.raises(InputError, match=f"stage explore of this sweep.*{said}"):
        open_ledger(tmp_path, STUDY.changed(**changes), stages=(stage,))
    open_ledger(tmp_path, STUDY.changed(sampler="gp", memory_limit=1), stages=(stage,))


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsgaii", "random"])
def test_a_large_seed_is_accepted(tmp_path, sampler):
    ledger = open_ledger(tmp_path, STUDY.changed(sampler=sampler), seed=20261124)
    assert ledger.propose().run.seed == 20261124


def test_trials_on_other_data_are_refused(tmp_path):
    ledger = open_ledger(tmp_path)
    digests = {"data_digest": "g" * 64, "other_digests": {"fc100": "f" * 64}}
    ledger.report(begin(ledger, "confirm"), result(0.5) | digests)
    ledger = open_ledger(tmp_path)
    ledger.check_data({"glyphs": "g" * 64, "fc100": "f" * 64, "omniglot": "o" * 64})
    ledger.check_data({"glyphs": "g" * 64})
    for name, known in (("glyphs", "g"), ("fc100", "f")):
        with pytest.raises(InputError, match=f"confirm 000 .* other data .{name} .*{known * 12}, "):
            ledger.check_data({name: "x" * 64})


def test_a_refused_trial_starts_again_if_it_fits(tmp_path):
    refusal = failure("out_of_memory") | {"step": 0}
    ledger = open_ledger(tmp_path)
    for told in (refusal, refusal, refusal | {"hardware": "h"}):
        ledger.report(ledger.propose(), told)
    small, *_ = ledger.entries()
    ledger = open_ledger(tmp_path)
    ledger.reopen([small.slot])
    again, *others = ledger.entries()
    assert again.status == "interrupted"
    assert [entry.status for entry in others] == ["out_of_memory"] * 2
    ticket = ledger.begin("search", again.index, again.params, again.run.seed)
    assert (ticket.run, ledger.entry(again.slot).status) == (small.run, "running")
    ledger.report(ticket, result(0.5))
    assert [entry.status for entry in open_ledger(tmp_path).finished()] == [
        "complete",
        *["out_of_memory"] * 2,
    ]


def test_another_objective_is_refused_once_search_has_started(tmp_path):
    both = STUDY.changed(objective=("accuracy", "memory"))
    begin(open_ledger(tmp_path, stages=("explore",)))
    open_ledger(tmp_path, both, stages=("explore", "search")).propose()
    with pytest.raises(InputError, match=r"stage search .*objective was .*memory"):
        open_ledger(tmp_path, stages=("explore", "search"))
    open_ledger(tmp_path, stages=("explore",))


@pytest.mark.parametrize("url", [None, "sqlite:///{}/ledger.db"])
def test_a_stage_without_trials_does_not_affect_another_study(tmp_path, url):
    url = url and url.format(tmp_path)
    open_ledger(tmp_path, url=url)
    other = STUDY.changed(learner=LearnerConfig(filters=7), objective=("accuracy", "memory"))
    ledger = open_ledger(tmp_path, other, url=url)
    assert ledger.entries() == []
    assert ledger.settings == {}
    ledger.report(ledger.propose(), result(0.5))
    assert [entry.run.learner.filters for entry in ledger.ranking()] == [7]


def test_a_journal_grows_linearly_with_the_validations(tmp_path):
    sizes = []
    for validations in (50, 100):
        folder = tmp_path / str(validations)
        folder.mkdir()
        ledger = open_ledger(folder)
        ticket = ledger.propose()
        before = (folder / "journal.log").stat().st_size
        for number in range(1, validations + 1):
            ledger.report(ticket, result(0.5, status="running", reports=number))
        last = ledger.report(ticket, result(0.5, reports=validations))
        sizes.append((folder / "journal.log").stat().st_size - before)
        assert last.result == result(0.5, reports=validations)
        assert open_ledger(folder).entries() == [last]
    assert sizes[1] < 2.2 * sizes[0]


def test_validations_before_an_interruption_are_kept(tmp_path):
    ledger = open_ledger(tmp_path)
    ledger.report(ledger.propose(), result(0.5, status="running", reports=3))
    ledger = open_ledger(tmp_path)
    (entry,) = ledger.entries()
    ticket = ledger.begin("search", 0, entry.params, entry.run.seed)
    ledger.report(ticket, result(0.6, reports=5))
    assert open_ledger(tmp_path).entries()[0].result == result(0.6, reports=5)


def test_long_messages_are_shortened_for_mysql(tmp_path):
    ledger = open_ledger(tmp_path)
    told = failure("failed") | {"message": "x" * 100_000 + "the end"}
    entry = ledger.report(ledger.propose(), told)
    assert len(entry.result["message"]) < 2**15
    assert entry.result["message"].endswith("the end")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        *((line, "line 3 is not a record") for line in (
            b"\x00garbage", b"{}", b"null", b"[]", b"1", b'"op_code"', b'{"op_code": "0"}',
            b"[" * 10_000,
        )),
        (b'{"op_code": 99, "worker_id": "w"}', "does not know"),
        (b'{"op_code": 4}', "does not know"),
        (b'{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"settings": {}}}',
         "damaged"),
        (b'{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"settings": null}}',
         "damaged"),
        (b'{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"version": 99}}',
         "later version of memmeta"),
        (b'{"op_code": 8, "worker_id": "w", "trial_id": 0, "user_attr": {"params": [1]}}',
         "damaged"),
        (b'{"op_code": 8, "worker_id": "w", "trial_id": 0, "user_attr": {"result": []}}',
         "damaged"),
        (b'{"op_code": 8, "worker_id": "w", "trial_id": 0, "user_attr": {"index": "x"}}',
         "damaged"),
    ],
)  # fmt: skip
def test_a_damaged_journal_is_reported_in_one_line_with_advice(tmp_path, line, said):
    ledger = open_ledger(tmp_path)
    ledger.propose()
    path = tmp_path / "journal.log"
    lines = path.read_bytes().splitlines()
    place = 2 if "line 3" in said else len(lines)
    path.write_bytes(b"\n".join([*lines[:place], line, *lines[place:]]) + b"\n")
    with pytest.raises(InputError, match=said) as error:
        open_ledger(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"val_accuracy":0.5', '"val_accuracy":"x"'),
        ('"metrics":{"val_accuracy":0.5,"val_interval":0.01}', '"metrics":null'),
        ('"index":0', '"index":Infinity'),
        ('"values":[0.5]', '"values":[]'),
        ('"study_name":"s-10steps-seed0/search"', '"study_name":["x"]'),
    ],
)
def test_a_damaged_value_is_one_line(tmp_path, before, after):
    ledger = open_ledger(tmp_path)
    ledger.report(ledger.propose(), result(0.5))
    path = tmp_path / "journal.log"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(InputError, match=r"damaged|does not know"):
        open_ledger(tmp_path)


def test_blank_lines_at_the_end_of_a_journal_are_ignored(tmp_path):
    begin(open_ledger(tmp_path))
    path = tmp_path / "journal.log"
    whole = path.read_bytes()
    path.write_bytes(whole + b"\n\r\n \n")
    assert len(open_ledger(tmp_path).entries()) == 1
    assert path.read_bytes().startswith(whole)


@settings(max_examples=30)
@given(st.data())
def test_a_journal_with_lost_repeated_or_swapped_lines_is_refused(data):
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(folder)
        for accuracy in (0.4, 0.5):
            ledger.report(ledger.propose(), result(accuracy, reports=2))
        path = Path(folder) / "journal.log"
        lines = path.read_bytes().splitlines(keepends=True)
        # The last lines may be missing: then the journal is as it was earlier.
        first = data.draw(st.integers(0, len(lines) - 2))
        change = data.draw(st.sampled_from(["lost", "repeated", "swapped"]))
        changed = {
            "lost": [*lines[:first], *lines[first + 1 :]],
            "repeated": [*lines[: first + 1], *lines[first:]],
            "swapped": [*lines[:first], lines[first + 1], lines[first], *lines[first + 2 :]],
        }
        path.write_bytes(b"".join(changed[change]))
        with pytest.raises(InputError, match=r"lines before line \d+ are missing or were added"):
            open_ledger(folder)
        path.write_bytes(b"".join(lines))
        assert len(open_ledger(folder).entries()) == 2


def test_lines_of_version_1_have_no_numbers_and_new_ones_do(tmp_path):
    begin(open_ledger(tmp_path))
    path = tmp_path / "journal.log"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record.pop("line") for record in records] == [*range(1, len(records) + 1)]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    begin(open_ledger(tmp_path), index=1)
    again = [json.loads(line) for line in path.read_text().splitlines()]
    assert again[: len(records)] == records
    assert again[-1]["line"] == len(again)
    assert len(open_ledger(tmp_path).entries()) == 2


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["journal.log", "ledger.id"])
def test_a_folder_or_pipe_in_place_of_a_file_is_one_line(tmp_path, make, name):
    make(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: not a file|is in a database"):
        open_ledger(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"x" * 32])
def test_a_damaged_identity_is_one_line(tmp_path, content):
    begin(open_ledger(tmp_path))
    (tmp_path / "ledger.id").write_bytes(content)
    with pytest.raises(InputError, match=r"ledger\.id: damaged"):
        open_ledger(tmp_path)
    (tmp_path / "ledger.id").unlink()
    assert len(open_ledger(tmp_path).entries()) == 1


def test_a_folder_in_the_place_of_the_lock_is_one_line(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(InputError, match="lock: cannot be written"), sweep_lock(tmp_path):
        pass


def test_a_lock_that_leads_nowhere_is_one_line(tmp_path):
    (tmp_path / "lock").symlink_to("lock")
    with pytest.raises(InputError, match="lock: cannot be written"), sweep_lock(tmp_path):
        pass


@pytest.mark.parametrize("url", [None, "sqlite:///{}/ledger.db"])
def test_an_empty_record_next_to_checkpoints_is_refused(tmp_path, url):
    url = url and url.format(tmp_path)
    folder = tmp_path / "sweep"
    (folder / "checkpoints" / "abc").mkdir(parents=True)
    with pytest.raises(InputError, match=r"checkpoints.*record is empty.*new version"):
        open_ledger(folder, url=url)


def test_search_proposes_new_configs_until_the_space_is_exhausted(tmp_path):
    study = STUDY.changed(space={"inner_steps": {"low": 1, "high": 4}, "ridge": [0.1, 0.2, 0.3]})
    for sampler in ("tpe", "gp", "random"):
        folder = tmp_path / sampler
        folder.mkdir()
        ledger = open_ledger(folder, study.changed(sampler=sampler))
        ledger.report(ledger.begin("explore", 0, {"inner_steps": 2, "ridge": 0.3}, 0), result(0.9))
        for _ in range(11):
            ticket = ledger.propose()
            ledger.report(ticket, result(0.9 if ticket.run.learner.inner_steps == 2 else 0.1))
        assert len({entry.key for entry in ledger.entries()}) == 12
        assert [entry.index for entry in ledger.entries("search")] == [*range(11)]


def test_one_driver_at_a_time(tmp_path):
    with (
        sweep_lock(tmp_path),
        pytest.raises(InputError, match="already running"),
        sweep_lock(tmp_path),
    ):
        pass
    with sweep_lock(tmp_path):
        pass


def test_conditional_dimensions_are_proposed_only_where_they_apply(tmp_path):
    study = STUDY.changed(
        space={"cg_steps": IntDistribution(1, 5), "algorithm": ["memory_reduced", "anil"]}
    )
    ledger = open_ledger(tmp_path, study)
    for _ in range(6):
        ledger.report(ledger.propose(), result(0.5))
    for entry in open_ledger(tmp_path, study).entries():
        reduced = entry.run.learner.algorithm == "memory_reduced"
        assert ("cg_steps" in entry.params) == reduced


def test_a_twin_is_a_running_trial_or_a_finished_one_of_the_same_stage(tmp_path):
    ledger = open_ledger(tmp_path)
    explored = begin(ledger, "explore")
    confirming = begin(ledger, "confirm")
    assert ledger.twin(confirming).slot == explored.slot
    ledger.report(explored, result(0.5))
    assert ledger.twin(confirming) is None
    again = ledger.begin("explore", 1, {"inner_lr": 0.5}, seed=0)
    assert ledger.twin(again).slot == explored.slot
    assert ledger.twin(ledger.begin("explore", 2, {"inner_lr": 0.6}, seed=0)) is None
    ledger = open_ledger(tmp_path)
    again = ledger.begin("explore", 1, {"inner_lr": 0.5}, seed=0)
    assert ledger.twin(again).slot == explored.slot


def test_the_ranking_is_up_to_date_after_each_result(tmp_path):
    (tmp_path / "sweep").mkdir()
    ledger = open_ledger(tmp_path / "sweep")
    for number, accuracy in enumerate((0.5, 0.7, 0.6, 0.7)):
        ledger.report(ledger.propose(), result(accuracy))
        ranked = [entry.slot for entry in ledger.ranking()]
        copy = shutil.copytree(tmp_path / "sweep", tmp_path / f"copy {number}")
        assert ranked == [entry.slot for entry in open_ledger(copy).ranking()]
    assert [slot.index for slot in ranked] == [1, 3, 2, 0]
