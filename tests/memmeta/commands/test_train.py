import resource

import psutil
import pytest
import yaml

from memmeta import data
from memmeta.config import RunConfig
from memmeta.exported import Export, ExportedRun, Results
from memmeta.settings.limits import MOST
from memmeta.training import MetaTrainer
from tests.memmeta.commands.helpers import TINY, final_accuracy, write


def test_train_evaluate_and_train_again(call, tmp_path):
    config = write(tmp_path / "tiny.yaml", TINY)
    code, output = call("train", config, "--out", "run.pt")
    assert code == 0, output
    assert "step      2" in output
    assert "peak:" in output
    code, again = call("train", config, "--out", "run.pt")
    assert "continuing from run.pt, step 4" in again
    assert final_accuracy(again) == final_accuracy(output)
    code, evaluated = call("evaluate", "run.pt", "--split", "val")
    assert code == 0, evaluated
    assert final_accuracy(output) in evaluated


def test_stopped_between_validations_goes_on_from_there(call, tmp_path, monkeypatch):
    config = write(tmp_path / "tiny.yaml", TINY)
    _, whole = call("train", config, "--out", "whole.pt")
    monkeypatch.setattr("memmeta.checkpoint.BETWEEN_SAVES", 0.0)
    step = MetaTrainer.step
    monkeypatch.setattr(
        MetaTrainer, "step", lambda self: step(self) if not self.iteration else stop()
    )
    assert call("train", config, "--out", "run.pt") == (1, "\nAborted!\n")
    monkeypatch.setattr(MetaTrainer, "step", step)
    _, again = call("train", config, "--out", "run.pt")
    assert "continuing from run.pt, step 1" in again
    assert final_accuracy(again) == final_accuracy(whole)


def stop():
    raise KeyboardInterrupt


def test_a_disk_that_fills_up_is_one_line_and_the_same_command_goes_on(call, tmp_path):
    """A limit on the size of files stands in for it: writes fail half-way in the same manner."""
    config = write(tmp_path / "tiny.yaml", TINY)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))
    try:
        code, output = call("train", config, "--out", "run.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert code == 1
    assert output == (
        "Error: run.pt: cannot be written (File too large); to continue, start the run again\n"
    )
    assert not [*tmp_path.glob("*run.pt*")]
    code, output = call("train", config, "--out", "run.pt")
    assert code == 0, output


def test_options_replace_the_configs_values(call, tmp_path):
    config = write(tmp_path / "tiny.yaml", TINY)
    code, output = call("train", config, "--tasks", "3", "--seed", "7")
    assert code == 0, output
    run = RunConfig.model_validate(TINY | {"seed": 7, "training": TINY["training"] | {
        "iterations": None, "tasks": 3}})  # fmt: skip
    assert (tmp_path / "runs" / "train" / f"{run.key}.pt").exists()


@pytest.mark.parametrize(
    ("shift", "verdict", "name"),
    [(0.0, "the same", "best.yaml"), (0.1, "not the same", "best.json")],
)
def test_an_exported_run_says_whether_it_repeats_its_numbers(
    call, tmp_path, dataset_accuracy, shift, verdict, name
):
    results = Results(
        val_accuracy=dataset_accuracy + shift,
        val_interval=0.1,
        val_tasks=6,
        peak_memory_bytes=1,
        seconds_per_step=None,
    )
    run = ExportedRun(config=RunConfig.model_validate(TINY), results=results)
    export = Export(study="s", runs=[run])
    text = (
        export.model_dump_json() if name.endswith("json") else yaml.safe_dump(export.model_dump())
    )
    code, output = call("train", write(tmp_path / name, text))
    assert code == 0, output
    assert f"stated:    {results.val_accuracy:.2%}, {verdict}" in output


@pytest.fixture
def dataset_accuracy(data_root) -> float:
    """What the tiny run gives, by the library."""
    trainer = MetaTrainer(RunConfig.model_validate(TINY), data.load("glyphs", data_root), "cpu")
    while not trainer.done:
        trainer.step()
    return trainer.evaluate("val", 6).value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (TINY | {"lerner": {}}, "bad.yaml: unknown key lerner"),
        (TINY | {"learner": {"ridge": -1}}, "learner.ridge: input should be greater than or equal"),
        (
            TINY | {"data": {"name": "imagenet"}},
            "data.name: no such data set (did you mean miniimagenet?), choose from",
        ),
        (TINY | {"data": TINY["data"] | {"ways": 5000}}, "5000 ways"),
        ("a: [", "bad.yaml: not a YAML file (line 1)"),
    ],
)
def test_a_bad_config_is_one_line_and_exit_code_2(call, tmp_path, content, said):
    code, output = call("train", write(tmp_path / "bad.yaml", content))
    assert code == 2
    assert said in output
    assert len(output.strip().splitlines()) == 1


def test_a_cache_elsewhere_is_used_by_option_and_by_environment(
    call, data_root, tmp_path, monkeypatch
):
    config = write(tmp_path / "tiny.yaml", TINY)
    _, expected = call("train", config, "--out", "a.pt")
    root, cache = tmp_path / "nodata", data_root / "cache"
    code, output = call("train", config, "--out", "b.pt", "--data-root", root, "--cache", cache)
    assert code == 0, output
    assert f"--cache {cache}" in output
    assert final_accuracy(output) == final_accuracy(expected)
    monkeypatch.setenv("MEMMETA_CACHE", str(cache))
    code, output = call("evaluate", "b.pt", "--split", "val", "--data-root", root)
    assert final_accuracy(expected) in output
    assert not root.exists()


def test_missing_data_says_what_was_looked_for_and_how_to_get_it(call, tmp_path):
    config = write(tmp_path / "c.yaml", TINY | {"data": {"name": "cifar_fs"}})
    code, output = call("train", config, "--data-root", tmp_path / "nowhere")
    assert code == 2
    for part in (
        "cifar_fs: no data found",
        "nowhere",
        "CIFAR_FS_",
        "memmeta data download cifar_fs",
    ):
        assert part in output
    assert len(output.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "missing.yaml"], "missing.yaml: cannot be read"),
        (["evaluate", "missing.pt"], "missing.pt: cannot be read"),
        (["train", "tiny.yaml", "--iterations", "0"], "training.iterations"),
        (["train", "tiny.yaml", "--iterations", "1", "--tasks", "1"], "either --iterations or"),
        (["train", "tiny.yaml", "--device", "warp"], "device warp: "),
        (["train", "tiny.yaml", "--device", "meta"], "device meta: "),
        (["train", "tiny.yaml", "--device", "hpu"], "device hpu: "),
        (["train", "tiny.yaml", "--device", "privateuseone"], "device privateuseone: "),
        (["train", "tiny.yaml", "--seed", "-1"], "seed"),
        (["train", "tiny.yaml", "--seed", str(2**64)], "seed: input should be less than"),
        (["train", "tiny.yaml", "--rank", "7"], "no run of rank 7: it is a single config"),
        (["train", "tiny.yaml", "--out", "tiny.yaml/run.pt"], "run.pt: cannot be written (File"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(call, tmp_path, words, said):
    write(tmp_path / "tiny.yaml", TINY)
    code, output = call(*words)
    assert code == 2
    assert said in output
    assert "Traceback" not in output


def test_a_path_that_cannot_be_written_is_found_out_before_training(call, tmp_path):
    config = write(tmp_path / "tiny.yaml", TINY)
    code, output = call("train", config, "--out", "n" * 250)
    assert code == 2
    assert output.strip().endswith("cannot be written (File name too long)")
    assert len(output.strip().splitlines()) == 1


def test_too_little_memory_is_one_line_and_exit_code_1(call, tmp_path):
    config = TINY | {"learner": TINY["learner"] | {"filters": MOST}}
    unlimited = resource.getrlimit(resource.RLIMIT_AS)
    taken = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, unlimited[1]))
    try:
        code, output = call("train", write(tmp_path / "m.yaml", config))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, unlimited)
    assert code == 1
    assert "out of memory; a smaller task_batch" in output
    assert len(output.strip().splitlines()) == 1


def test_the_checkpoint_of_another_run_is_not_overwritten(call, tmp_path):
    config = write(tmp_path / "tiny.yaml", TINY)
    call("train", config, "--out", "run.pt")
    code, output = call("train", config, "--out", "run.pt", "--seed", "1")
    assert code == 2
    assert "the checkpoint of another run" in output


def test_a_damaged_checkpoint_is_set_aside_where_no_file_was_named(call, tmp_path):
    config = write(tmp_path / "tiny.yaml", TINY)
    _, whole = call("train", config)
    (path,) = (tmp_path / "runs" / "train").glob("*.pt")
    path.write_bytes(path.read_bytes()[:-100])
    code, output = call("train", config)
    assert code == 0, output
    assert f"renamed to {path.name}.damaged-1. Training starts over" in output
    assert final_accuracy(output) == final_accuracy(whole)


def test_divergence_is_one_line_and_exit_code_1(call, tmp_path):
    learner = TINY["learner"] | {"inner_lr": 1e30}
    code, output = call("train", write(tmp_path / "d.yaml", TINY | {"learner": learner}))
    assert code == 1
    assert "diverged at outer step 0; a smaller inner_lr" in output
