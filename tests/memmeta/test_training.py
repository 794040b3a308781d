import dataclasses
import math
import statistics
import time
from contextlib import suppress

import pytest
import torch

from memmeta import checkpoint
from memmeta.algorithms.inner_loop import predict
from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.data.sets.sinusoid import Sinusoid
from memmeta.errors import DivergedError, InputError
from memmeta.evaluation import EVALUATION_SEED, score
from memmeta.peak_memory import measure_peak
from memmeta.training import MetaTrainer


def with_learner(run: RunConfig, **changes: object) -> RunConfig:
    return run.model_copy(update={"learner": run.learner.model_copy(update=changes)})


def parameters(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


def finish(trainer):
    while not trainer.done:
        trainer.train_to_evaluation()
    return trainer.reports


def scored(trainer, split, indices):
    return score(trainer.model, trainer.config, trainer.dataset, split, indices)


def without_times(reports):
    return [report._replace(time=0.0) for report in reports]


thorough = pytest.mark.thorough
LEARNERS = [
    {},
    pytest.param({"norm": "group"}, marks=thorough),
    {"norm": "frozen", "head": "last_block"},
    {"head": "mlp", "task_pool": 3, "warm_start": True},
    pytest.param({"task_pool": 2, "warm_start": True}, marks=thorough),
    {"algorithm": "itd_bio", "task_pool": 5, "warm_start": True},
    pytest.param(
        {"algorithm": "itd_bio", "feature_reuse": False, "head": "last_block"},
        marks=thorough,
    ),
    pytest.param({"algorithm": "anil", "feature_reuse": False, "head": "mlp"}, marks=thorough),
    {"algorithm": "anil", "first_order": True, "task_pool": 2},
    pytest.param({"algorithm": "maml", "inner_lr": 0.1}, marks=thorough),
    {"algorithm": "maml", "norm": "frozen", "first_order": True},
    {"backbone": "resnet12", "filters": 2},
    {"schedule": "cosine", "weight_decay": 0.1, "precision": "bfloat16"},
]


@pytest.mark.parametrize("learner", LEARNERS)
def test_resumed_equals_uninterrupted_to_the_last_bit(run, dataset, tmp_path, learner):
    """A run that stops after its first, second, third and fifth step."""
    run = with_learner(run, **learner)
    whole = MetaTrainer(run, dataset, "cpu")
    steps = [whole.step() for _ in range(run.iterations)]

    trainer, path, resumed = MetaTrainer(run, dataset, "cpu"), tmp_path / "trainer.pt", []
    for stop in (1, 2, 3, 5, run.iterations):
        resumed += [trainer.step() for _ in range(stop - trainer.iteration)]
        checkpoint.save(path, trainer)
        trainer = MetaTrainer(checkpoint.load(path).config, dataset, "cpu")
        checkpoint.resume(trainer, path)

    assert resumed == steps
    assert_same(parameters(trainer), parameters(whole))
    assert trainer.evaluate("test", 5) == whole.evaluate("test", 5)
    assert trainer.peak_memory == whole.peak_memory


@pytest.mark.parametrize("validated", [0, 1, 2])
def test_a_resumed_run_reports_as_an_uninterrupted_one(run, dataset, tmp_path, validated):
    whole = finish(MetaTrainer(run, dataset, "cpu"))

    first = MetaTrainer(run, dataset, "cpu")
    before = [first.train_to_evaluation() for _ in range(validated)]
    checkpoint.save(tmp_path / "trainer.pt", first)
    second = MetaTrainer(run, dataset, "cpu")
    checkpoint.resume(second, tmp_path / "trainer.pt")
    assert second.reports == before

    resumed = finish(second)
    assert first.reports == before
    assert without_times(resumed) == without_times(whole)


@pytest.mark.parametrize("step", [1, 2, 4, 5])
def test_a_run_saved_between_validations_reports_as_an_uninterrupted_one(
    run, dataset, tmp_path, step
):
    whole = finish(MetaTrainer(run, dataset, "cpu"))

    first, path, seen = MetaTrainer(run, dataset, "cpu"), tmp_path / "trainer.pt", []

    def between_steps():
        seen.append(first.iteration)
        if first.iteration == step:
            checkpoint.save(path, first)

    while not first.done:
        first.train_to_evaluation(between_steps=between_steps)
    assert seen == [1, 2, 4, 5]  # validations are after 3 and 6
    second = MetaTrainer(run, dataset, "cpu")
    checkpoint.resume(second, path)
    assert second.iteration == step
    assert 0 < second.seconds < first.seconds
    assert without_times(finish(second)) == without_times(whole)


def test_saves_now_and_then(monkeypatch):
    clock, saved = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    maybe_save = checkpoint.throttled(lambda: saved.append(clock[0]))
    for clock[0] in (1.0, 299.0, 300.0, 301.0, 599.0, 700.0, 999.0, 1000.0):
        maybe_save()
    assert saved == [300.0, 700.0, 1000.0]


def test_a_report_says_when_it_was_made(run, dataset):
    start = time.time()
    first, second = finish(MetaTrainer(run, dataset, "cpu"))
    assert start <= first.time <= second.time <= time.time()


@pytest.mark.parametrize("algorithm", ["memory_reduced", "itd_bio"])
def test_a_warm_start_changes_nothing_before_a_task_comes_again(run, dataset, algorithm):
    pooled = with_learner(run, algorithm=algorithm, task_pool=4)
    warm = with_learner(pooled, warm_start=True)
    cold_steps, warm_steps = (
        [trainer.step() for _ in range(4)]
        for trainer in (MetaTrainer(pooled, dataset, "cpu"), MetaTrainer(warm, dataset, "cpu"))
    )
    assert cold_steps[:2] == warm_steps[:2]
    for cold, continued in zip(cold_steps[2:], warm_steps[2:], strict=True):
        assert continued["inner_gradient_norm"] < cold["inner_gradient_norm"]


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_a_warm_start_of_a_pool_of_one_leaves_the_initial_head_as_it_was(run, dataset, head):
    run = with_learner(run, head=head, task_batch=1, task_pool=1, warm_start=True)
    trainer = MetaTrainer(run, dataset, "cpu")
    before = [p.clone() for p in trainer.model.head.parameters()]
    trainer.step()
    assert_same(before, trainer.model.head.parameters())


def test_a_pool_of_tasks_is_trained_on_in_turn(run, dataset):
    trainer = MetaTrainer(with_learner(run, task_pool=3), dataset, "cpu")
    seen = []
    for _ in range(3):
        seen.append(trainer._training_indices())
        trainer.step()
    assert seen == [[0, 1], [2, 0], [1, 2]]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"ways": 9}, "glyphs, split train: 9 ways, but the split has 8 classes"),
        ({"shots": 11}, "glyphs, split train: 11 shots and 2 queries are 13 images a class"),
        ({"eval_queries": 11}, "glyphs, split val: 2 shots and 11 queries are 13 images a class"),
    ],
)
def test_episodes_that_the_data_cannot_give_are_refused_before_training(run, dataset, shape, said):
    run = run.model_copy(update={"data": run.data.model_copy(update=shape)})
    with pytest.raises(InputError, match=said):
        MetaTrainer(run, dataset, "cpu")


@pytest.mark.parametrize("split", ["val", "test"])
def test_classes_that_do_not_suffice_are_refused_before_training(run, dataset, split):
    whole = dataset.val
    two = dataclasses.replace(whole, offsets=whole.offsets[:3], class_names=whole.class_names[:2])
    with pytest.raises(InputError, match=f"split {split}: 3 ways, but the split has 2 classes"):
        MetaTrainer(run, dataclasses.replace(dataset, **{split: two}), "cpu")


@pytest.mark.parametrize("learner", [{"algorithm": "anil"}, {"algorithm": "maml"}, {}])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_the_initial_head_is_trained_where_it_is_learned(run, dataset, learner, head):
    trainer = MetaTrainer(with_learner(run, head=head, inner_lr=0.1, **learner), dataset, "cpu")
    before = [p.clone() for p in trainer.model.head.top.parameters()]
    for _ in range(3):
        trainer.step()
    after = trainer.model.head.top.parameters()
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert not any(same) if learner else all(same)


@pytest.mark.parametrize("learner", [{}, {"algorithm": "maml"}, {"head": "last_block"}])
def test_evaluating_more_tasks_takes_no_more_memory(run, dataset, learner):
    trainer = MetaTrainer(with_learner(run, **learner), dataset, "cpu")

    def peak(tasks):
        return measure_peak(
            lambda: trainer.evaluate("val", tasks), trainer.held_tensors, trainer.device
        )[1]

    few, many = peak(4), peak(40)
    assert many - few <= 36 * 8  # an accuracy a task


@pytest.mark.parametrize("learner", [{}, {"head": "last_block"}, {"algorithm": "maml"}])
def test_frozen_norms_begin_with_the_statistics_of_training_images(run, dataset, learner):
    trainer = MetaTrainer(with_learner(run, norm="frozen", **learner), dataset, "cpu")
    buffers = [b.clone() for b in trainer.model.buffers()]
    assert not any(torch.equal(b, torch.zeros_like(b)) for b in buffers[::3])  # the means
    trainer.step()
    trainer.evaluate("val", 2)
    assert_same(buffers, trainer.model.buffers())


@pytest.mark.parametrize(
    ("seed", "learner"),
    [
        (2**64 - 1, {}),
        (0, {"outer_lr": 1e6, "weight_decay": 1e308}),
        (0, {"ridge": 1e308}),
        (0, {"inner_lr": 1e308}),
    ],
)
def test_the_largest_values_that_a_config_takes_are_numbers_of_a_run(run, dataset, seed, learner):
    trainer = MetaTrainer(
        with_learner(run, **learner).model_copy(update={"seed": seed}), dataset, "cpu"
    )
    with suppress(DivergedError):
        finish(trainer)


def test_same_seed_same_numbers_other_seed_other_numbers(run, dataset):
    one, same = (finish(MetaTrainer(run, dataset, "cpu")) for _ in range(2))
    other = finish(MetaTrainer(run.model_copy(update={"seed": 4}), dataset, "cpu"))
    assert without_times(one) == without_times(same)
    assert without_times(one) != without_times(other)


def test_validates_at_evenly_spaced_steps_and_at_the_end(run, dataset):
    training = run.training.model_copy(update={"iterations": 7, "evaluations": 3})
    trainer = MetaTrainer(run.model_copy(update={"training": training}), dataset, "cpu")
    assert [report.iteration for report in finish(trainer)] == [2, 5, 7]


def test_more_validations_than_steps_validates_after_each(run, dataset):
    training = run.training.model_copy(update={"iterations": 2, "evaluations": 5})
    trainer = MetaTrainer(run.model_copy(update={"training": training}), dataset, "cpu")
    assert [report.iteration for report in finish(trainer)] == [1, 2]


def test_a_cosine_schedule_goes_from_the_step_size_to_nothing(run, dataset):
    run = with_learner(run, schedule="cosine", outer_lr=0.5)
    trainer = MetaTrainer(run, dataset, "cpu")
    found = []
    for _ in range(run.iterations):
        trainer.step()
        found.append(trainer.optimizer.param_groups[0]["lr"])
    quarters = [0.5 * math.cos(math.pi / 2 * i / run.iterations) ** 2 for i in range(len(found))]
    assert found == pytest.approx(quarters)


def test_weight_decay_shrinks_what_is_learned_apart_from_the_gradient(run, dataset):
    decay, plain = (
        MetaTrainer(with_learner(run, weight_decay=w, outer_lr=0.01), dataset, "cpu")
        for w in (0.3, 0.0)
    )
    before = parameters(plain)
    decay.step()
    plain.step()
    for start, a, b in zip(before, parameters(decay), parameters(plain), strict=True):
        torch.testing.assert_close(a, b - 0.01 * 0.3 * start)


def test_only_training_tasks_are_augmented(run, dataset):
    plain, changed = (
        MetaTrainer(with_learner(run, augment=augment), dataset, "cpu") for augment in (False, True)
    )
    assert plain.evaluate("val", 5) == changed.evaluate("val", 5)
    assert plain.step() != changed.step()


@pytest.mark.parametrize("algorithm", ["memory_reduced", "itd_bio"])
def test_training_may_have_more_ways_than_evaluation(run, dataset, algorithm):
    def trainer(**shape):
        data = run.data.model_copy(update=shape)
        changed = with_learner(run, algorithm=algorithm).model_copy(update={"data": data})
        return MetaTrainer(changed, dataset, "cpu")

    both, many, few = trainer(ways=3, train_ways=7), trainer(ways=7), trainer(ways=3)
    assert [both.step() for _ in range(3)] == [many.step() for _ in range(3)]
    assert both.peak_memory == many.peak_memory
    few.model.backbone.load_state_dict(both.model.backbone.state_dict())
    for split in ("val", "test"):
        assert both.evaluate(split, 5) == few.evaluate(split, 5)
    resumed = trainer(ways=3, train_ways=7)
    resumed.load_state_dict(both.state_dict())
    assert resumed.step() == many.step()


def test_learns(run, dataset):
    run = with_learner(run, inner_steps=10, outer_lr=0.01, task_batch=4)
    trainer = MetaTrainer(run, dataset, "cpu")
    losses = [trainer.step()["query_loss"] for _ in range(30)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_evaluation_reports_mean_and_interval_over_tasks(run, dataset):
    trainer = MetaTrainer(run, dataset, "cpu")
    many = trainer.evaluate("test", 7)  # not a multiple of the tasks evaluated at once
    each = torch.cat([scored(trainer, "test", range(i, i + 1)) for i in range(7)]).double()
    assert many.value == pytest.approx(each.mean().item(), abs=1e-6)
    # Student's quantile for six degrees of freedom, from a printed table.
    assert many.interval == pytest.approx(2.4469 * each.std().item() / math.sqrt(7), rel=1e-4)


def test_evaluation_leaves_training_as_it_was(run, dataset):
    plain, watched = (MetaTrainer(run, dataset, "cpu") for _ in range(2))
    for _ in range(3):
        plain.step()
        watched.step()
        watched.evaluate("val", 3)
    assert_same(parameters(plain), parameters(watched))


def test_evaluation_episodes_do_not_depend_on_the_seed(run, dataset):
    one, other = (
        MetaTrainer(run.model_copy(update={"seed": seed}), dataset, "cpu") for seed in (0, 1)
    )
    other.model.load_state_dict(one.model.state_dict())
    assert one.evaluate("val", 5) == other.evaluate("val", 5)


def test_peak_memory_is_that_of_a_warm_step_and_independent_of_k_and_n(run, dataset):
    trainers = [
        MetaTrainer(with_learner(run, inner_steps=k, cg_steps=k), dataset, "cpu") for k in (2, 20)
    ]
    for trainer in trainers:
        trainer.step()
        assert trainer.peak_memory is None
        trainer.step()
    small, large = (trainer.peak_memory for trainer in trainers)
    assert small == large
    parameter_bytes = sum(p.nbytes for p in trainers[0].model.learned())
    assert small > 4 * parameter_bytes  # with gradients and Adam's two moments


def with_residuals(run, dataset, residuals):
    """A trainer whose reports have these mean CG residuals."""
    trainer = MetaTrainer(run, dataset, "cpu")
    report = trainer.train_to_evaluation()
    trainer.reports = [
        report._replace(diagnostics=report.diagnostics | {"cg_residual": residual})
        for residual in residuals
    ]
    return trainer


def test_a_run_whose_cg_residual_stays_above_1_says_so(run, dataset):
    for residuals in ([0.5], [1.0, 1.0000003], [100.0, 0.1, 0.1], [0.5, 0.5, 0.5, 1.1], [2.0, 0.3]):
        assert with_residuals(run, dataset, residuals).note is None
    for residuals in ([3.0], [0.9, 5.0, 7.0, 12.0], [5.0, 7.0, 12.0, 0.9], [4.0, 3.0]):
        assert "CG residual" in with_residuals(run, dataset, residuals).note
    assert MetaTrainer(run, dataset, "cpu").note is None
    anil = MetaTrainer(with_learner(run, algorithm="anil"), dataset, "cpu")
    anil.train_to_evaluation()
    assert anil.note is None


def test_divergence_is_reported_and_changes_nothing(run, dataset):
    trainer = MetaTrainer(run, dataset, "cpu")
    trainer.step()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(math.nan)
    before = [p.nan_to_num(7.0) for p in parameters(trainer)]
    with pytest.raises(DivergedError, match="outer step 1"):
        trainer.step()
    assert_same([p.nan_to_num(7.0) for p in parameters(trainer)], before)
    assert trainer.iteration == 1


@pytest.fixture
def regression() -> RunConfig:
    return RunConfig(
        data=DataConfig(name="sinusoid", ways=1, eval_queries=7),
        learner=LearnerConfig(backbone="mlp", inner_steps=5, inner_lr=0.3, task_batch=2),
        training=TrainingConfig(iterations=4, evaluations=2, val_tasks=5),
    )


def test_regression_is_evaluated_by_its_mean_squared_error(regression):
    trainer = MetaTrainer(regression, Sinusoid(), "cpu")
    result = trainer.evaluate("val", 5)
    shape = regression.data.evaluation_shape
    episodes = Sinusoid().episodes("val", shape, seed=EVALUATION_SEED, indices=range(5))
    predicted = predict(trainer.model, episodes, regression.learner)[..., 0]
    each = [
        sum((p - y) ** 2 for p, y in zip(ps, ys, strict=True)) / 7
        for ps, ys in zip(predicted.tolist(), episodes.query_labels.tolist(), strict=True)
    ]
    assert result.value == pytest.approx(statistics.mean(each), rel=1e-5)
    # Student's quantile for four degrees of freedom, from a printed table.
    assert result.interval == pytest.approx(2.7764 * statistics.stdev(each) / 5**0.5, rel=1e-4)
    assert result.tasks == 5


@pytest.mark.parametrize("learner", [{}, {"algorithm": "itd_bio"}, {"algorithm": "maml"}])
def test_regression_from_a_single_point_does_not_diverge(regression, learner):
    data = regression.data.model_copy(update={"shots": 1})
    run = with_learner(regression, inner_lr=0.01, **learner).model_copy(update={"data": data})
    assert len(finish(MetaTrainer(run, Sinusoid(), "cpu"))) == 2


@pytest.mark.parametrize("learner", [{}, {"head": "mlp"}, {"algorithm": "maml"}])
def test_scores_that_are_not_finite_are_divergence_and_no_guess(run, dataset, learner):
    trainer = MetaTrainer(with_learner(run, **learner), dataset, "cpu")
    assert scored(trainer, "val", range(2)).isfinite().all()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(math.nan)
    assert scored(trainer, "val", range(2)).isnan().all()
    for split in ("val", "test"):
        with pytest.raises(DivergedError, match="outer step 0"):
            trainer.evaluate(split, 4)


def test_an_accuracy_is_unknown_only_where_scores_are_not_finite(run, dataset, monkeypatch):
    trainer = MetaTrainer(run, dataset, "cpu")
    before = scored(trainer, "val", range(2))

    def broken(*inputs):
        scores = predict(*inputs)
        scores[1, 3, 0] = math.inf
        return scores

    monkeypatch.setattr("memmeta.evaluation.predict", broken)
    first, second = scored(trainer, "val", range(2))
    assert first == before[0]
    assert second.isnan()


def test_an_error_that_is_not_finite_at_validation_is_divergence(regression, monkeypatch):
    trainer = MetaTrainer(regression, Sinusoid(), "cpu")
    trainer.train_to_evaluation()
    step = trainer.step

    def overflowing_step():
        metrics = step()
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(1e38)
        return metrics

    step()
    monkeypatch.setattr(trainer, "step", overflowing_step)
    with pytest.raises(DivergedError, match="outer step 4"):
        trainer.train_to_evaluation()
