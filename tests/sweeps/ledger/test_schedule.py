"""Schedules of sweeps, with a formula in place of training."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memmeta.config import TrainingConfig
from sweeps.engine.ledger.entry import Slot
from sweeps.engine.ledger.ledger import Ledger
from sweeps.engine.ledger.schedule import Schedule, quotas
from sweeps.engine.study import design
from tests.sweeps.ledger.test_ledger import STUDY, failure, result


def open_sweep(folder, study=STUDY, choice="all", trials=12):
    wanted = quotas(study, choice, trials)
    ledger = Ledger(study, 0, Path(folder), stages=tuple(wanted))
    return ledger, Schedule(ledger, wanted)


def accuracy(run):
    """Made-up accuracy: best near inner_lr 0.3, with a little noise from the seed."""
    noise = int(run.key, 16) % 100 / 1e4
    return 1 / (1 + abs(run.learner.inner_lr - 0.3)) + noise - 0.01


def finish(ledger, ticket):
    ledger.report(ticket, result(accuracy(ticket.run)))


def run_all(ledger, schedule, at_once=1):
    """Run all remaining trials, `at_once` at a time. Returns their slots in order."""
    order, running = [], []
    while True:
        ticket = schedule.next() if len(running) < at_once else "wait"
        if ticket == "finished":
            return order
        if ticket == "wait":
            finish(ledger, running.pop(0))
        else:
            order.append(ticket.slot)
            running.append(ticket)


def table(ledger):
    return {entry.slot: (entry.run, entry.result) for entry in ledger.entries() if entry.finished}


def count(ledger):
    return Counter(entry.stage for entry in ledger.entries() if entry.finished)


def test_the_budget_is_divided_completely():
    for trials in range(1, 200):
        divided = quotas(STUDY, "all", trials)
        assert sum(divided.values()) == trials
        assert divided["explore"] >= divided["search"] >= divided["confirm"] >= 0
        assert divided["confirm"] in (0, 1, 2, 3, 6, 9, 12, 15)
    assert quotas(STUDY, "explore", 7) == {"explore": 7}


def test_stages_come_in_order_and_confirm_waits_for_all_others(tmp_path):
    ledger, schedule = open_sweep(tmp_path)
    order = run_all(ledger, schedule, at_once=3)
    assert [slot.stage for slot in order] == ["explore"] * 6 + ["search"] * 3 + ["confirm"] * 3
    assert schedule.finished
    best = max(ledger.entries("explore", "search"), key=lambda entry: accuracy(entry.run))
    confirmed = ledger.entries("confirm")
    assert {entry.run.seed for entry in confirmed} == {1, 2, 3}
    assert all(entry.params == best.params for entry in confirmed)
    assert all(entry.run.seed == 0 for entry in ledger.entries("explore", "search"))


def test_explore_is_the_design(tmp_path):
    ledger, schedule = open_sweep(tmp_path, choice="explore", trials=5)
    run_all(ledger, schedule)
    points = [design.sobol_point(STUDY, 0, index) for index in range(5)]
    assert [entry.params for entry in ledger.entries("explore")] == points


def test_a_finished_sweep_runs_nothing_and_a_larger_budget_only_the_missing_trials(tmp_path):
    run_all(*open_sweep(tmp_path))
    assert run_all(*open_sweep(tmp_path)) == []
    ledger, schedule = open_sweep(tmp_path, trials=16)
    assert (schedule.done(), schedule.total) == (12, 16)
    assert len(run_all(ledger, schedule)) == 4
    assert count(ledger) == {"explore": 9, "search": 4, "confirm": 3}
    ledger, schedule = open_sweep(tmp_path, trials=4)
    assert (schedule.done(), schedule.total, schedule.finished) == (4, 4, True)


@pytest.mark.parametrize(
    ("trials", "counts"),
    [
        (32, {"explore": 6, "confirm": 6}),
        (8, {"explore": 4, "search": 2, "confirm": 2}),
        (12, {"explore": 6, "confirm": 3}),
    ],
)
def test_a_small_space_is_run_once_and_then_exhausted(tmp_path, trials, counts):
    study = STUDY.changed(space={"inner_steps": {"low": 1, "high": 3}, "ridge": [0.1, 0.2]})
    ledger, schedule = open_sweep(tmp_path, study, trials=trials)
    run_all(ledger, schedule)
    assert schedule.finished
    assert count(ledger) == counts
    chosen = [tuple(entry.params.items()) for entry in ledger.entries("explore", "search")]
    assert len(chosen) == len(set(chosen))
    assert set(schedule.exhausted) == ({"explore", "search"} if trials == 32 else
                                       {"search"} if trials == 12 else set())  # fmt: skip
    confirmed = [entry.key for entry in ledger.entries("confirm")]
    assert len(confirmed) == len(set(confirmed))
    assert open_sweep(tmp_path, study, trials=trials)[1].finished


def test_with_a_larger_budget_the_new_best_configs_are_confirmed(tmp_path):
    def last_is_best(ledger, schedule):
        while (ticket := schedule.next()) != "finished":
            ledger.report(ticket, result(0.5 + 0.01 * ticket.index))

    last_is_best(*open_sweep(tmp_path, trials=12))
    ledger, schedule = open_sweep(tmp_path, trials=24)
    last_is_best(ledger, schedule)
    assert schedule.finished
    fresh = {(tuple(e.params.items()), e.run.seed) for e in ledger.entries("confirm")}
    best = [tuple(entry.params.items()) for entry in ledger.ranking()[:2]]
    assert {(params, seed) for params in best for seed in (1, 2, 3)} <= fresh


def test_a_grid_runs_every_combination_with_every_seed_and_grows(tmp_path):
    study = STUDY.changed(grid={"inner_steps": [1, 5], "cg_steps": [1, 2]}, seeds=2)
    assert len(run_all(*open_sweep(tmp_path, study, "grid"))) == 8
    study = STUDY.changed(grid={"inner_steps": [1, 5, 9], "cg_steps": [1, 2]}, seeds=2)
    ledger, schedule = open_sweep(tmp_path, study, "grid")
    assert (schedule.done(), schedule.total) == (8, 12)
    assert len(run_all(ledger, schedule)) == 4
    cells = {
        (e.run.learner.inner_steps, e.run.learner.cg_steps, e.run.seed)
        for e in ledger.finished("grid")
    }
    assert cells == {(k, n, seed) for k in (1, 5, 9) for n in (1, 2) for seed in (0, 1)}


def test_an_interrupted_trial_of_another_grid_waits_for_that_grid(tmp_path):
    study = STUDY.changed(grid={"inner_steps": [1, 5]}, seeds=1)
    _, schedule = open_sweep(tmp_path, study, "grid")
    schedule.next()
    other = STUDY.changed(grid={"inner_steps": [7]}, seeds=1)
    ledger, schedule = open_sweep(tmp_path, other, "grid")
    run_all(ledger, schedule)
    assert [e.run.learner.inner_steps for e in ledger.finished("grid")] == [7]
    ledger, schedule = open_sweep(tmp_path, study, "grid")
    run_all(ledger, schedule)
    assert sorted(e.run.learner.inner_steps for e in ledger.finished("grid")) == [1, 5, 7]


TUNED = STUDY.changed(
    grid={"cg_steps": [1, 2], "inner_steps": [1, 5]},
    tuned={"inner_lr": [0.1, 0.3, 1.0]},
    tuning=TrainingConfig(iterations=2),
    seeds=2,
)


def test_each_cell_of_a_tuned_grid_has_its_best_values_and_fresh_seeds(tmp_path):
    ledger, schedule = open_sweep(tmp_path, TUNED, "grid")
    assert (schedule.total, schedule.lost_cells) == (12 + 8, 0)
    order = run_all(ledger, schedule, at_once=3)
    assert [slot.stage for slot in order] == ["tune"] * 12 + ["grid"] * 8
    assert schedule.finished
    tried, cells = ledger.entries("tune"), ledger.entries("grid")
    assert {(e.run.seed, e.run.iterations) for e in tried} == {(0, 2)}
    assert {(e.run.seed, e.run.iterations) for e in cells} == {
        (seed, STUDY.training.iterations) for seed in (1, 2)
    }
    for cell in cells:
        where = {name: cell.params[name] for name in TUNED.grid}
        own = [entry for entry in tried if entry.params.items() >= where.items()]
        assert len(own) == 3
        assert cell.params == max(own, key=lambda entry: accuracy(entry.run)).params


def test_a_larger_tuned_grid_tunes_only_its_new_cells(tmp_path):
    run_all(*open_sweep(tmp_path, TUNED, "grid"))
    assert run_all(*open_sweep(tmp_path, TUNED, "grid")) == []
    wider = TUNED.changed(grid={**TUNED.grid, "inner_steps": [1, 5, 20]}, seeds=3)
    ledger, schedule = open_sweep(tmp_path, wider, "grid")
    # The total counts only cells that are tuned; the others get their seeds later.
    assert (schedule.done(), schedule.total) == (12 + 8, 18 + 18)
    order = run_all(ledger, schedule)
    assert Counter(slot.stage for slot in order) == {"tune": 6, "grid": 10}
    assert schedule.finished


def test_a_cell_without_a_complete_trial_is_left_out(tmp_path):
    ledger, schedule = open_sweep(tmp_path, TUNED, "grid")
    while schedule.done("tune") < 12:
        ticket = schedule.next()
        learner = ticket.run.learner
        lost = (learner.cg_steps, learner.inner_steps) == (1, 5) or learner.inner_lr == 0.3
        told = failure("diverged") if lost else result(accuracy(ticket.run))
        ledger.report(ticket, told)
    assert (schedule.total, schedule.lost_cells) == (12 + 6, 1)
    run_all(ledger, schedule)
    assert schedule.finished
    cells = {(e.params["cg_steps"], e.params["inner_steps"]) for e in ledger.entries("grid")}
    assert cells == {(1, 1), (2, 1), (2, 5)}
    assert {e.params["inner_lr"] for e in ledger.entries("grid")} == {0.1}


def test_with_two_objectives_cells_are_tuned_by_the_metric(tmp_path):
    study = TUNED.changed(objective="accuracy,memory", memory_limit="1KiB")
    ledger, schedule = open_sweep(tmp_path, study, "grid")
    while (ticket := schedule.next()) != "finished":
        over = 2**11 if ticket.run.learner.inner_lr == 0.3 else 2**9
        ledger.report(ticket, result(accuracy(ticket.run), peak=over))
    assert {e.params["inner_lr"] for e in ledger.entries("grid")} == {0.3}


def test_with_fewer_feasible_configs_there_is_less_to_confirm(tmp_path):
    ledger, schedule = open_sweep(tmp_path, trials=24)
    while schedule.done("explore", "search") < 18:
        ticket = schedule.next()
        told = result(0.5) if ticket.slot == Slot("explore", 3) else failure("diverged")
        ledger.report(ticket, told)
    assert schedule.total == 18 + 3
    run_all(ledger, schedule)
    assert schedule.finished


def test_a_lost_trial_is_not_started_twice_by_one_driver_and_delays_confirm(tmp_path):
    ledger, schedule = open_sweep(tmp_path)
    lost = schedule.next()
    ledger.release(lost)
    order = run_all(ledger, schedule)
    assert lost.slot not in order
    assert Counter(slot.stage for slot in order) == {"explore": 5, "search": 3}
    assert not schedule.finished
    ledger, schedule = open_sweep(tmp_path)
    order = run_all(ledger, schedule)
    assert order == [lost.slot, Slot("confirm", 0), Slot("confirm", 1), Slot("confirm", 2)]


@settings(max_examples=25)
@given(st.lists(st.integers(0, 6), max_size=12), st.sampled_from(["all", "grid"]))
def test_a_sweep_whose_drivers_die_ends_like_an_uninterrupted_one(lives, choice):
    """Each driver starts or ends the given number of trials, and then dies."""
    asked = TUNED, choice
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as torn:
        ledger, schedule = open_sweep(whole, *asked)
        run_all(ledger, schedule)
        for steps in lives:
            ledger_now, schedule_now = open_sweep(torn, *asked)
            ticket = None
            for _ in range(steps):
                if ticket is None:
                    ticket = schedule_now.next()
                    if ticket == "finished":
                        break
                else:
                    finish(ledger_now, ticket)
                    ticket = None
        torn_ledger, torn_schedule = open_sweep(torn, *asked)
        run_all(torn_ledger, torn_schedule)
        assert table(torn_ledger) == table(ledger)


def test_each_config_runs_once_in_any_order_of_stages(tmp_path):
    study = STUDY.changed(space={"inner_steps": [1, 2], "cg_steps": [1, 2, 3]})
    for stage, trials, counts in (
        ("search", 2, {"search": 2}),
        ("explore", 3, {"search": 2, "explore": 3}),
        ("search", 9, {"search": 3, "explore": 3}),
        ("explore", 9, {"search": 3, "explore": 3}),
    ):
        ledger, schedule = open_sweep(tmp_path, study, stage, trials)
        run_all(ledger, schedule)
        assert schedule.finished
        assert count(ledger) == counts
    assert len({entry.key for entry in ledger.entries()}) == 6


def test_confirmed_trials_that_lack_a_score_run_again_in_their_slots(tmp_path):
    run_all(*open_sweep(tmp_path))
    study = STUDY.changed(evaluate_on=["fc100", "omniglot"])
    ledger, schedule = open_sweep(tmp_path, study)
    confirmed = ledger.entries("confirm")
    assert schedule.finished
    assert schedule.unscored == confirmed
    ledger.reopen(entry.slot for entry in schedule.unscored)
    assert schedule.done() == schedule.total - len(confirmed)
    for entry in confirmed:
        ticket = schedule.next()
        assert (ticket.slot, ticket.run) == (entry.slot, entry.run)
        scored = {"other_digests": {"fc100": "f", "omniglot": "o"}}
        ledger.report(ticket, entry.result | scored)
    assert schedule.next() == "finished"
    ledger, schedule = open_sweep(tmp_path, study)
    assert schedule.finished
    assert schedule.unscored == []
    _, schedule = open_sweep(tmp_path, STUDY)
    assert schedule.unscored == []


def test_a_confirmed_trial_that_is_interrupted_while_it_runs_again_keeps_its_result(tmp_path):
    run_all(*open_sweep(tmp_path))
    study = STUDY.changed(evaluate_on=["fc100"])
    ledger, schedule = open_sweep(tmp_path, study)
    before = table(ledger)
    for report in (False, True):
        ledger, schedule = open_sweep(tmp_path, study)
        ledger.reopen(entry.slot for entry in schedule.unscored)
        ticket = schedule.next()
        if report:
            ledger.report(ticket, failure("running"))
        ledger, schedule = open_sweep(tmp_path, study)
        assert table(ledger) == before
        assert ticket.slot in [entry.slot for entry in schedule.unscored]


def test_other_stages_are_not_scored_on_other_data(tmp_path):
    study = STUDY.changed(evaluate_on=["fc100"])
    ledger, schedule = open_sweep(tmp_path, study, "explore", trials=2)
    run_all(ledger, schedule)
    assert schedule.unscored == []
