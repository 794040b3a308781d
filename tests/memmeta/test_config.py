from typing import Annotated

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from memmeta.config import (
    Before,
    DataConfig,
    LearnerConfig,
    RunConfig,
    TrainingConfig,
    completed,
    parse,
)
from memmeta.data.sets.sinusoid import Sinusoid
from memmeta.errors import InputError
from memmeta.exported import Export, ExportedRun, read_run


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learner": {"inner_lrr": 1}}, "unknown key learner.inner_lrr"),
        ({"learner": {"inner_lr": -1}}, "learner.inner_lr: input should be greater than 0, got -1"),
        ({"learner": {"inner_lr": float("nan")}}, "learner.inner_lr: input should be"),
        ({"learner": {"norm": "layer"}}, "'batch', 'frozen' or 'group', got 'layer'"),
        ({"data": {"ways": 1}}, "data.ways: input should be greater than or equal to 2, got 1"),
        ({"data": {"name": "sinusoid"}}, "data.ways: sinusoid has no classes, ways should be 1"),
        (
            {"data": {"rotations": True}},
            "data.rotations: for omniglot and own images only, got True",
        ),
        (
            {"data": {"name": "sinusoid", "ways": 1, "train_ways": 5}},
            "data.train_ways: sinusoid has",
        ),
        (
            {"data": {"train_ways": 9}, "learner": {"algorithm": "anil"}},
            "train_ways is for algorithm",
        ),
        ({"data": {"train_ways": 9}, "learner": {"head": "mlp"}}, "with a linear head"),
        ({"data": {"train_ways": 9}, "learner": {"chunk": 25}}, "a task of 90 images or more"),
        ({"training": {}}, "training: give either iterations or tasks"),
        ({"training": {"iterations": 1, "tasks": 1}}, "give either iterations or tasks"),
        (
            {"learner": {"algorithm": "maml", "feature_reuse": False}},
            "learner: feature_reuse false is for",
        ),
        ({"learner": {"feature_reuse": False}}, "feature_reuse false is for itd_bio and anil"),
        ({"learner": {"augment": True}}, "learner.augment is for cifar_fs, fc100"),
        ({"learner": {"algorithm": "maml", "precision": "bfloat16"}}, "maml shares none"),
        ({"learner": {"first_order": True}}, "learner: first_order is not for memory_reduced"),
        ({"learner": {"algorithm": "maml", "head": "last_block"}}, "maml adapts every block"),
        ({"learner": {"backbone": "mlp", "head": "last_block"}}, "backbone mlp has no blocks"),
        ({"learner": {"backbone": "mlp", "norm": "group"}}, "backbone mlp has no norm"),
        ({"learner": {"warm_start": True}}, "warm_start needs a task_pool"),
        (
            {"learner": {"algorithm": "anil", "warm_start": True, "task_pool": 9}},
            "warm_start is not for anil",
        ),
        ({"learner": {"task_pool": 10**12}}, "task_pool: input should be less than or equal"),
        ({"training": {"tasks": 10**12}}, "training.tasks: input should be less than or equal"),
        ({"training": {"iterations": 10**12}}, "training.iterations: input should be less than"),
        ({"training": {"tasks": 1, "val_tasks": 10**9}}, "training.val_tasks: input should be"),
        ({"learner": {"task_pool": 7}}, "task_pool must hold a task_batch"),
        ({"learner": {"outer_lr": 1e38}}, "learner.outer_lr: input should be less than or equal"),
        ({"seed": 2**64}, "seed: input should be less than 18446744073709551616"),
        ([1], "valid dictionary"),
        (None, "valid dictionary"),
    ],
)
def test_bad_values_are_named(values, said):
    with pytest.raises(InputError) as error:
        parse(RunConfig, values, "x.yaml")
    assert str(error.value).startswith("x.yaml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("algorithm", ["memory_reduced", "itd_bio", "anil", "maml"])
def test_a_search_can_switch_the_algorithm_and_leave_the_rest(algorithm):
    parse(LearnerConfig, LearnerConfig().model_dump() | {"algorithm": algorithm}, "space")


@pytest.mark.parametrize("ways", [2, 5, 20])
def test_the_chance_level_is_that_of_a_guess(ways):
    assert DataConfig(ways=ways).chance_level == 1 / ways


def test_the_chance_level_of_waves_is_that_of_predicting_0():
    config = DataConfig(name="sinusoid", ways=1, shots=1, queries=20)
    shape = config.training_shape
    waves = Sinusoid().episodes("train", shape, seed=0, indices=range(20_000))
    errors = waves.query_labels.double().square().mean(dim=1)
    tolerance = 4 * errors.std().item() / len(errors) ** 0.5
    assert tolerance < 0.03 * config.chance_level
    assert errors.mean().item() == pytest.approx(config.chance_level, abs=tolerance)


@given(tasks=st.integers(1, 1000), batch=st.integers(1, 64))
def test_a_budget_in_tasks_is_rounded_up_to_whole_steps(tasks, batch):
    run = RunConfig(learner=LearnerConfig(task_batch=batch), training=TrainingConfig(tasks=tasks))
    assert (run.iterations - 1) * batch < tasks <= run.iterations * batch


def test_key_tells_runs_apart_and_survives_yaml():
    runs = [RunConfig(seed=seed, learner=LearnerConfig(ridge=r)) for seed in (0, 1) for r in (0, 1)]
    assert len({run.key for run in runs}) == 4
    for run in runs:
        again = RunConfig.model_validate(yaml.safe_load(yaml.safe_dump(run.model_dump())))
        assert again.key == run.key


class _LaterLearner(LearnerConfig):
    solver: Annotated[str | None, Before("cg")] = None

    def explicit(self):
        return super().explicit() | {"solver": self.solver or f"best for {self.head}"}


class _LaterRun(RunConfig):
    learner: _LaterLearner = _LaterLearner()


def test_a_later_field_changes_the_key_of_runs_that_use_it_alone():
    old = RunConfig()
    as_before = _LaterRun(learner=_LaterLearner(solver="cg"))
    default, spelled_out = (
        _LaterRun(learner=_LaterLearner(solver=solver)) for solver in (None, "best for linear")
    )
    assert as_before.key == old.key != default.key == spelled_out.key


def test_a_record_without_a_field_has_what_runs_did_before_it():
    record = RunConfig(seed=3, learner=LearnerConfig(ridge=0.5)).model_dump()
    run = parse(_LaterRun, completed(_LaterRun, record), "ledger")
    assert (run.learner.solver, run.learner.ridge, run.seed) == ("cg", 0.5, 3)
    assert completed(_LaterRun, run.model_dump()) == run.model_dump()
    assert completed(_LaterRun, [1]) == [1]


def test_keys_are_those_of_version_1():
    """A changed key orphans the checkpoints of every sweep. These are of commit 178167f."""
    runs = {
        "6996b8450088": RunConfig(),
        "6139b767ca35": RunConfig(
            data=DataConfig(name="sinusoid", ways=1),
            learner=LearnerConfig(backbone="mlp", inner_lr=0.1, task_pool=9, algorithm="anil"),
            training=TrainingConfig(tasks=100),
            seed=7,
        ),
    }
    assert {key: run.key for key, run in runs.items()} == {key: key for key in runs}


def _given(values):
    return {name: value for name, value in values.items() if value is not None}


def test_curvature_that_is_not_given_is_that_of_the_head():
    def solved(**learner):
        return LearnerConfig(**learner).solved_curvature

    assert solved() == solved(head="mlp", algorithm="anil") == "hessian"
    assert solved(head="mlp") == solved(head="last_block") == "gauss_newton"
    for given_one in ("hessian", "gauss_newton"):
        assert solved(head="mlp", curvature=given_one) == given_one
    run = RunConfig(learner=LearnerConfig(head="mlp"))
    assert run.flat()["curvature"] == "gauss_newton"
    spelled_out, older = (
        RunConfig(learner=LearnerConfig(head="mlp", curvature=curvature))
        for curvature in ("gauss_newton", "hessian")
    )
    assert run.key == spelled_out.key != older.key
    linear = RunConfig(learner=LearnerConfig(curvature="hessian"))
    assert linear.key == RunConfig().key


def test_flat_holds_every_setting_under_a_name_of_its_own():
    run = RunConfig(training=TrainingConfig(tasks=5))
    parts = (run.data, run.learner, run.training)
    flat = run.flat()
    assert len(flat) == sum(len(_given(part.explicit())) for part in parts) + 1
    assert (flat["dataset"], flat["tasks"], flat["seed"]) == ("glyphs", 5, 0)


def test_reads_plain_configs_and_exports(tmp_path):
    plain, exported = tmp_path / "plain.yaml", tmp_path / "exported.yaml"
    runs = [RunConfig(seed=seed) for seed in (5, 6)]
    plain.write_text(yaml.safe_dump(runs[0].model_dump()))
    export = Export(study="s", runs=[ExportedRun(config=run) for run in runs])
    exported.write_text(yaml.safe_dump(export.model_dump()))
    assert read_run(plain).config == runs[0]
    assert [read_run(exported, rank).config for rank in (1, 2)] == runs
    with pytest.raises(InputError, match="no run of rank 3: it has 2"):
        read_run(exported, 3)
    with pytest.raises(InputError, match=r"plain.yaml: no run of rank 2: it is a single config"):
        read_run(plain, 2)


@pytest.mark.parametrize(
    ("data", "metric", "said"),
    [
        ({}, {"val_mse": 0.5}, "results on glyphs should have a val_accuracy"),
        ({}, {}, "results on glyphs should have a val_accuracy"),
        ({"name": "sinusoid", "ways": 1}, {"val_accuracy": 0.5}, "should have a val_mse"),
        ({}, {"val_accuracy": 0.5, "val_mse": 0.5}, "results on glyphs should have"),
    ],
)
def test_results_hold_the_metric_of_the_data(data, metric, said):
    rest = {"val_interval": 0.1, "val_tasks": 4, "peak_memory_bytes": 1, "seconds_per_step": 0.1}
    config = {"data": data, "learner": {"backbone": "mlp" if data else "conv4"}}
    with pytest.raises(InputError, match=said):
        parse(ExportedRun, {"config": config, "results": metric | rest}, "best.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [1, 2", "not a YAML file"),
        (b"\xff\xfe\x00", "not a YAML file"),
        (b"!!python/object/apply:os.system ['true']", "not a YAML file"),
        (b"seed: 2024-13-45", "not a YAML file"),
        (b"seed: 0x_", "not a YAML file"),
        (b"seed: !!float ''", "not a YAML file"),
        (b"seed: " + b"9" * 5000, "5000 characters are too long"),
        (b"[" * 5000, "not a YAML file"),
        (b"", "valid dictionary"),
    ],
)
def test_unreadable_yaml_is_one_line(tmp_path, content, said):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_run(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_run(tmp_path / "missing.yaml")
