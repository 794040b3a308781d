import math

import pytest
import torch

from memmeta import checkpoint
from memmeta.config import RunConfig
from memmeta.errors import InputError
from memmeta.training import DivergedError, MetaTrainer


def with_learner(run: RunConfig, **changes: object) -> RunConfig:
    return run.model_copy(update={"learner": run.learner.model_copy(update=changes)})


def parameters(trainer):
    return [p.detach().clone() for p in trainer.model.parameters()]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x, y)


def finish(trainer):
    reports = []
    while not trainer.done:
        reports.append(trainer.train_to_evaluation())
    return reports


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("stop", [1, 2, 3, 5])
def test_resumed_equals_uninterrupted_to_the_last_bit(run, dataset, tmp_path, stop, norm):
    run = with_learner(run, norm=norm)
    whole = MetaTrainer(run, dataset, "cpu")
    steps = [whole.step() for _ in range(run.iterations)]

    first = MetaTrainer(run, dataset, "cpu")
    before = [first.step() for _ in range(stop)]
    checkpoint.save(tmp_path / "trainer.pt", first)
    config, state = checkpoint.load(tmp_path / "trainer.pt")
    second = MetaTrainer(config, dataset, "cpu")
    second.load_state_dict(state)
    after = [second.step() for _ in range(run.iterations - stop)]

    assert before + after == steps
    assert_same(parameters(second), parameters(whole))
    assert second.evaluate("test", 5) == whole.evaluate("test", 5)
    assert second.peak_memory == whole.peak_memory


def test_same_seed_same_numbers_other_seed_other_numbers(run, dataset):
    one, same = (finish(MetaTrainer(run, dataset, "cpu")) for _ in range(2))
    other = finish(MetaTrainer(run.model_copy(update={"seed": 4}), dataset, "cpu"))
    assert one == same
    assert one != other


def test_validates_at_evenly_spaced_steps_and_at_the_end(run, dataset):
    training = run.training.model_copy(update={"iterations": 7, "evaluations": 3})
    trainer = MetaTrainer(run.model_copy(update={"training": training}), dataset, "cpu")
    assert [report.iteration for report in finish(trainer)] == [2, 5, 7]


def test_more_validations_than_steps_validates_after_each(run, dataset):
    training = run.training.model_copy(update={"iterations": 2, "evaluations": 5})
    trainer = MetaTrainer(run.model_copy(update={"training": training}), dataset, "cpu")
    assert [report.iteration for report in finish(trainer)] == [1, 2]


def test_learns(run, dataset):
    run = with_learner(run, inner_steps=10, outer_lr=0.01, task_batch=4)
    trainer = MetaTrainer(run, dataset, "cpu")
    losses = [trainer.step()["query_loss"] for _ in range(30)]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_evaluation_reports_mean_and_interval_over_tasks(run, dataset):
    trainer = MetaTrainer(run, dataset, "cpu")
    many = trainer.evaluate("test", 7)  # not a multiple of the tasks evaluated at once
    each = torch.cat([trainer._accuracies("test", range(i, i + 1)) for i in range(7)]).double()
    assert many.accuracy == pytest.approx(each.mean().item(), abs=1e-6)
    assert many.interval == pytest.approx(1.96 * each.std().item() / math.sqrt(7), abs=1e-6)


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


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04broken"])
def test_damaged_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pt"):
        checkpoint.load(path)


def test_checkpoint_that_asks_for_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    torch.save({"config": Evil(), "trainer": {}}, tmp_path / "evil.pt")
    with pytest.raises(InputError, match=r"evil\.pt"):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "canary").exists()


def test_checkpoint_of_other_contents_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match=r"list\.pt"):
        checkpoint.load(tmp_path / "list.pt")
