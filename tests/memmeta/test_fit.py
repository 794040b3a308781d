"""Training from Python."""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from memmeta import checkpoint, data
from memmeta.config import LearnerConfig, RunConfig
from memmeta.data.sets.sinusoid import SINUSOID
from memmeta.errors import DivergedError, InputError
from memmeta.fit import train, train_run
from memmeta.training import MetaTrainer

LEARNER = LearnerConfig(filters=4, inner_steps=2, cg_steps=2, task_batch=2)
WAVES = LearnerConfig(backbone="mlp", inner_steps=2, task_batch=2)


def test_settings_reach_the_config(dataset):
    trained = train(
        LEARNER, dataset, tasks=5, seed=3, ways=3, train_ways=4, shots=1, queries=2,
        eval_queries=4, rotations=False, evaluations=1, val_tasks=2, device="cpu",
    )  # fmt: skip
    expected = {
        "data": {"name": "glyphs", "ways": 3, "train_ways": 4, "shots": 1, "queries": 2,
                 "eval_queries": 4},
        "learner": LEARNER,
        "training": {"tasks": 5, "evaluations": 1, "val_tasks": 2},
        "seed": 3,
    }  # fmt: skip
    assert trained.config == RunConfig.model_validate(expected)
    assert trained.config.iterations == 3


def test_defaults_are_those_of_configs():
    trained = train(WAVES, SINUSOID, iterations=4, val_tasks=2)
    expected = RunConfig.model_validate(
        {
            "data": {"name": "sinusoid", "ways": 1},
            "learner": WAVES,
            "training": {"iterations": 4, "val_tasks": 2},
        }
    )
    assert trained.config == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "train: training: give either iterations or tasks"),
        ({"tasks": 3, "iterations": 3}, "give either iterations or tasks"),
        ({"tasks": 0}, r"training\.tasks: .* greater than or equal to 1, got 0"),
        ({"tasks": 3, "ways": 1}, r"data\.ways: "),
        ({"tasks": 3, "ways": 9}, "9 ways, but the split has 8 classes"),
        ({"tasks": 3, "device": "warp"}, "device warp: "),
        ({"tasks": 3, "checkpoint": "file/model.pt"}, r"model\.pt: cannot be written"),
    ],
)
def test_bad_settings_are_one_line(dataset, settings, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=said) as error:
        train(
            LEARNER, dataset, **{"ways": 3, "shots": 1, "queries": 2, "eval_queries": 2} | settings
        )
    assert "\n" not in error.value.message


def test_a_config_of_another_data_set_is_refused(run):
    with pytest.raises(InputError, match="glyphs is expected, got sinusoid"):
        train_run(run, SINUSOID)


def test_an_interrupted_run_continues_from_its_checkpoint(run, dataset, tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    whole = train_run(run, dataset, device="cpu")
    step = MetaTrainer.step
    monkeypatch.setattr(
        MetaTrainer, "step", lambda self: step(self) if self.iteration < 4 else interrupt()
    )
    with pytest.raises(KeyboardInterrupt):
        train_run(run, dataset, device="cpu", checkpoint=path)
    assert checkpoint.load(path).state["iteration"] == 3
    monkeypatch.setattr(MetaTrainer, "step", step)
    again = train_run(run, dataset, device="cpu", checkpoint=path)
    assert [r.val for r in again.reports] == [r.val for r in whole.reports]
    assert train_run(run, dataset, device="cpu", checkpoint=path).reports == again.reports


def interrupt():
    raise KeyboardInterrupt


def test_the_checkpoint_of_another_run_is_not_overwritten(run, dataset, tmp_path):
    path = tmp_path / "model.pt"
    train_run(run, dataset, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(checkpoint.OtherRunError, match=r"another run \(seed 3, here 4\)"):
        train_run(run.model_copy(update={"seed": 4}), dataset, checkpoint=path)
    assert path.read_bytes() == before


def test_divergence_is_raised(dataset, run):
    learner = run.learner.model_copy(update={"inner_lr": 1e30})
    with pytest.raises(DivergedError):
        train_run(run.model_copy(update={"learner": learner}), dataset)


def test_the_process_is_left_as_it_was(run, dataset):
    """Signal handlers, random numbers, settings of PyTorch and the environment stay."""
    environment = dict(os.environ)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    train_run(run, dataset, device="cpu").evaluate("test", 2)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert dict(os.environ) == environment


def test_threads_that_train_at_once_get_the_numbers_of_their_seeds(run, dataset):
    configs = [run.model_copy(update={"seed": seed}) for seed in range(4)]
    alone = [train_run(config, dataset, device="cpu").reports[-1].val for config in configs]
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda config: train_run(config, dataset, device="cpu"), configs))
    assert [run.reports[-1].val for run in runs] == alone
    assert torch.equal(torch.get_rng_state(), before)


def test_training_works_outside_the_main_thread(run, dataset):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(train_run(run, dataset, device="cpu")))
    thread.start()
    thread.join()
    assert len(runs[0].reports) == 2


def test_without_a_terminal_lines_are_printed_to_standard_error(run, dataset, capfd):
    train_run(run, dataset)
    output, lines = capfd.readouterr()
    assert output == ""
    assert [line.split()[:2] for line in lines.splitlines()] == [["step", "3"], ["step", "6"]]


def test_without_progress_nothing_is_printed(run, dataset, capfd):
    train_run(run, dataset, progress=False)
    assert capfd.readouterr() == ("", "")


def test_data_sets_are_loaded_from_text_and_paths(data_root):
    for root in (data_root, str(data_root)):
        assert data.load_dataset("glyphs", root).digest == data.load("glyphs", data_root).digest
    with pytest.raises(InputError, match=r"glyfs: no such data set \(did you mean glyphs\?\)"):
        data.load_dataset("glyfs")
