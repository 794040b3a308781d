import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import ValidationError

from memmeta.config import DataConfig, LearnerConfig, RunConfig, TrainingConfig
from memmeta.errors import InputError
from sweeps import (
    cifar_fs,
    fc100,
    glyphs,
    miniimagenet,
    omniglot,
    sinusoid,
    tieredimagenet,
)
from sweeps.engine.study.design import grid_cells
from sweeps.engine.study.space import applies
from sweeps.engine.study.study import SPACE, Study, read_study
from tests import ROOT

STUDIES = [glyphs, cifar_fs, fc100, miniimagenet, tieredimagenet, omniglot, sinusoid]
EXAMPLES = ROOT / "examples"
SINUSOID = {"data": DataConfig(name="sinusoid", ways=1), "learner": LearnerConfig(backbone="mlp")}


def study(**changes):
    values = {"name": "s", "data": DataConfig(), "training": TrainingConfig(iterations=10)}
    return Study(**values | changes)


def write(folder, text):
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def test_a_study_in_yaml_equals_the_one_in_python(tmp_path):
    path = write(
        tmp_path,
        """
        name: s
        data: {name: glyphs, shots: 1}
        learner: {filters: 8}
        training: {tasks: 80}
        trials: 5
        space:
          inner_lr: {low: 0.03, high: 3, log: true}
          outer_lr: {low: 1e-4, high: 1e-2}
          inner_steps: {low: 1, high: 9, step: 2}
          ridge: {low: 0, high: 1, step: 0.25}
          norm: [batch, group]
          chunk: [null, 150]
        grid:
          cg_steps: [1, 5]
          ridge: [1e-3, 1]
        tuned:
          inner_lr: [0.1, 1]
        tuning: {tasks: 40, evaluations: 1}
        seeds: 2
        objective: accuracy,memory
        memory_limit: 200MiB
        sampler: nsgaii
        """,
    )
    assert read_study(path) == Study(
        name="s",
        data=DataConfig(name="glyphs", shots=1),
        learner=LearnerConfig(filters=8),
        training=TrainingConfig(tasks=80),
        trials=5,
        space={
            "inner_lr": FloatDistribution(0.03, 3.0, log=True),
            "outer_lr": FloatDistribution(1e-4, 1e-2),
            "inner_steps": IntDistribution(1, 9, step=2),
            "ridge": FloatDistribution(0, 1, step=0.25),
            "norm": CategoricalDistribution(["batch", "group"]),
            "chunk": CategoricalDistribution([None, 150]),
        },
        grid={"cg_steps": [1, 5], "ridge": [0.001, 1.0]},
        tuned={"inner_lr": [0.1, 1.0]},
        tuning=TrainingConfig(tasks=40, evaluations=1),
        seeds=2,
        objective=("accuracy", "memory"),
        memory_limit=200 * 2**20,
        sampler="nsgaii",
    )


def test_omitted_fields_have_defaults(tmp_path):
    short = write(tmp_path, "{name: s, data: {}, training: {iterations: 10}}")
    assert read_study(short) == study()
    assert study().space == SPACE
    assert (study().trials, study().seeds, study().grid) == (32, 3, {})
    assert study().objective == ("accuracy",)
    assert study(**SINUSOID).objective == ("mse",)


@pytest.mark.parametrize("objective", ["accuracy", ["accuracy"], ("accuracy",), None])
def test_one_objective_can_be_written_in_several_ways(objective):
    assert study(objective=objective).objective == ("accuracy",)


@pytest.mark.parametrize("objective", ["mse,memory", "mse, memory", ["mse", "memory"]])
def test_two_objectives_can_be_written_in_several_ways(objective):
    assert study(**SINUSOID, objective=objective).objective == ("mse", "memory")


@pytest.mark.parametrize(
    ("text", "limit"),
    [("200MiB", 209_715_200), ("2GiB", 2_147_483_648), ("1.5GB", 1_500_000_000), (7, 7)],
)
def test_a_memory_limit_has_a_unit_or_is_in_bytes(text, limit):
    assert study(memory_limit=text).memory_limit == limit


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a b"}, "name: letters, digits, _ and - are accepted, got 'a b'"),
        ({"trials": 0}, "trials: input should be greater than or equal to 1, got 0"),
        ({"seeds": 0}, "seeds: input should be greater than or equal to 1, got 0"),
        (
            {"sampler": "cma"},
            "sampler: no such sampler, choose from tpe, gp, nsgaii, random, got 'cma'",
        ),
        ({"training": {"iterations": 1, "tasks": 1}}, "training: give either iterations or tasks"),
        ({"objective": "mse"}, "objective: accepted are accuracy and accuracy,memory, got 'mse'"),
        (
            {"objective": ["memory"]},
            "objective: accepted are accuracy and accuracy,memory, got ['memory']",
        ),
        (
            {"memory_limit": "3 apples"},
            "memory_limit: bytes above 0 are accepted, such as 2000000, 200MiB or 1.5GB, got "
            "'3 apples'",
        ),
        (
            {"memory_limit": 0},
            "memory_limit: bytes above 0 are accepted, such as 2000000, 200MiB or 1.5GB, got 0",
        ),
        (
            {"objective": "accuracy,memory", "asha": True},
            "asha goes with one objective: with memory as a second one, trials that were stopped "
            "early would be on the Pareto front",
        ),
        ({"space": 3}, "space: input should be a valid dictionary, got 3"),
        (
            {"space": {"inner_lr": {"low": 0, "high": 1}}},
            "space.inner_lr: input should be greater than 0, got 0.0",
        ),
        (
            {"space": {"norm": ["batch", "layer"]}},
            "space.norm: input should be 'batch', 'frozen' or 'group', got 'layer'",
        ),
        ({"grid": {"cg_steps": 3}}, "grid.cg_steps: a list of values is accepted, got 3"),
        (
            {"grid": {"cg_steps": [1, -1]}},
            "grid.cg_steps: input should be greater than or equal to 0, got -1",
        ),
        (
            {"data": DataConfig(name="sinusoid", ways=1)},
            "learner.backbone conv4 does not suit data.name sinusoid: it takes images, and the "
            "data are numbers",
        ),
        (
            {
                "space": {
                    "algorithm": ["memory_reduced", "anil"],
                    "chunk": [None, 25],
                    "task_batch": [2, 4],
                }
            },
            "space: algorithm=anil with chunk=25: learner.chunk 25 would change the gradient: anil "
            "differentiates through a task as a whole, 50 images each",
        ),
        (
            {"space": {"chunk": {"low": 25, "high": 50, "step": 5}}},
            "space: chunk=30: learner.chunk 30 would change the gradient: BatchNorm normalises a "
            "set as a whole, so a chunk has to be a task of 50 images or more, or whole support "
            "sets of 25 and whole query sets of "
            "25 images (or norm group or frozen)",
        ),
        (
            {"learner": LearnerConfig(chunk=25), "grid": {"algorithm": ["memory_reduced", "maml"]}},
            "grid: algorithm=maml: learner: chunk is not for maml, which takes one task at a time",
        ),
        (
            {"space": {"task_batch": IntDistribution(2, 32), "task_pool": [None, 16]}},
            "space: task_pool=16 with task_batch=32: learner: task_pool must hold a task_batch",
        ),
        (
            {"tuned": {"inner_lr": [0.1]}},
            "tuned needs a grid: its fields are tuned for each combination",
        ),
        (
            {"grid": {"inner_lr": [0.1], "ridge": [0.1]}, "tuned": {"inner_lr": [1.0]}},
            "inner_lr: in both grid and tuned",
        ),
        (
            {"grid": {"cg_steps": [1, 5]}, "tuned": {"algorithm": ["anil", "memory_reduced"]}},
            "tuned: other fields depend on algorithm, which belongs in the grid",
        ),
        (
            {"grid": {"ridge": [0.1]}, "tuning": TrainingConfig(tasks=5)},
            "tuning is the budget of tuned fields, and there are none",
        ),
        (
            {"grid": {"algorithm": ["anil"]}, "tuned": {"chunk": [None, 25]}},
            "grid: algorithm=anil with chunk=25: learner.chunk 25 would change the gradient: anil "
            "differentiates through a task as a whole, 50 images each",
        ),
        ({"nmae": "x"}, "unknown key nmae (did you mean name?)"),
    ],
)
def test_an_invalid_study_is_refused_in_one_line(changes, said):
    with pytest.raises(InputError) as refusal:
        study().changed(**changes)
    assert refusal.value.message == f"study s: {said}"
    with pytest.raises(ValidationError):
        study(**changes)


def test_an_unknown_field_of_the_space_is_refused_with_the_known_fields():
    with pytest.raises(
        InputError,
        match=r"space\.inner_lrr: unknown key \(did you mean inner_lr\?\), accepted are algorithm,",
    ):
        study().changed(space={"inner_lrr": [1]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{name: s, data: {}, training: {iterations: 10}, trails: 3}", "unknown key trails"),
        ("{name: s, data: {shots: 0}, training: {iterations: 10}}", "data.shots: input should be"),
        ("{name: s, data: {}}", "training: field required"),
        ("name: [", "not a YAML file"),
        ("3", "study.yaml: input should be"),
    ],
)
def test_an_invalid_study_file_is_refused_with_its_name(tmp_path, text, said):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as refusal:
        read_study(path)
    assert refusal.value.message.startswith(f"{path}: ")
    assert said in refusal.value.message
    assert "\n" not in refusal.value.message


interacting = st.fixed_dictionaries(
    {"task_batch": st.just([2, 4])},
    optional={
        "algorithm": st.lists(
            st.sampled_from(["memory_reduced", "itd_bio", "anil", "maml"]), min_size=1, unique=True
        ),
        "feature_reuse": st.sampled_from([[False], [True, False]]),
        "first_order": st.sampled_from([[True], [True, False]]),
        "norm": st.lists(st.sampled_from(["batch", "group"]), min_size=1, unique=True),
        "head": st.lists(st.sampled_from(["linear", "last_block"]), min_size=1, unique=True),
        "chunk": st.lists(st.sampled_from([None, 25, 30, 50]), min_size=1, unique=True),
        "task_pool": st.sampled_from([[None], [None, 3], [4]]),
        "warm_start": st.sampled_from([[True], [True, False]]),
    },
)


@given(interacting, st.sampled_from(["space", "grid"]))
def test_a_study_is_accepted_if_all_its_combinations_are_valid(choices, field):
    accepted = True
    for combination in itertools.product(*choices.values()):
        values = LearnerConfig().model_dump() | dict(zip(choices, combination, strict=True))
        own = {name: values[name] for name in choices if applies(name, values)}
        try:
            RunConfig(learner=LearnerConfig(**own))
        except ValidationError:
            accepted = False
    if accepted:
        study(**{field: choices})
    else:
        with pytest.raises(ValidationError, match=f"{field}: "):
            study(**{field: choices})


def test_changed_replaces_only_the_given_fields():
    two = study(trials=5, objective="accuracy,memory").changed(trials=7, memory_limit="1KiB")
    assert two == study(trials=7, objective=("accuracy", "memory"), memory_limit=1024)
    assert study().changed(**SINUSOID).objective == ("mse",)
    assert study(trials=5).changed() == study(trials=5)


def test_a_point_of_the_space_becomes_a_run():
    run = study().run_config({"inner_steps": 7, "ridge": 0.5}, seed=3)
    assert (run.learner.inner_steps, run.learner.ridge, run.seed) == (7, 0.5, 3)
    assert run.training == TrainingConfig(iterations=10)


def test_a_point_with_contradictory_settings_is_refused():
    with pytest.raises(InputError, match="study s: learner: chunk is not for maml"):
        study().run_config({"algorithm": "maml", "chunk": 50}, seed=0)


STAGES = {
    "explore": {"space"},
    "search": {"space", "objective", "memory_limit"},
    "confirm": {"space", "objective", "memory_limit"},
    "tune": {"tuned"},
    "grid": {"tuned", "tuning"},
}


@pytest.mark.parametrize("stage", STAGES)
def test_settings_of_a_stage_are_json_of_the_fields_that_determine_its_trials(stage):
    asked = study(memory_limit="1KiB", space={"norm": ["batch", "group"], **SPACE})
    settings = asked.settings(stage, 1)
    assert json.loads(json.dumps(settings)) == settings
    assert set(settings) == {"data", "learner", "training", "seed"} | STAGES[stage]
    assert (settings["learner"], settings["seed"]) == (LearnerConfig().model_dump(), 1)
    # The settings are enough to rebuild the study.
    again = {name: value for name, value in settings.items() if name != "seed"}
    assert Study(name="s", **again).settings(stage, 1) == settings


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({"data": DataConfig(shots=1)}, set(STAGES)),
        ({"learner": LearnerConfig(filters=3)}, set(STAGES)),
        ({"training": TrainingConfig(tasks=9)}, set(STAGES)),
        ({"space": {"ridge": [0.1, 0.2]}}, {"explore", "search", "confirm"}),
        ({"memory_limit": 9}, {"search", "confirm"}),
        ({"objective": "accuracy,memory"}, {"search", "confirm"}),
        ({"trials": 9, "seeds": 9, "grid": {"ridge": [0.1]}, "sampler": "gp", "asha": True}, set()),
        ({"grid": {"ridge": [0.1]}, "tuned": {"inner_lr": [0.1]}}, {"tune", "grid"}),
    ],
)
def test_settings_of_a_stage_change_only_with_fields_that_affect_it(changes, stages):
    one, other = study(), study(**changes)
    assert {s for s in STAGES if one.settings(s, 0) != other.settings(s, 0)} == stages


def test_only_stage_tune_has_its_own_budget():
    brief = {"tuning": TrainingConfig(tasks=5)}
    one = study(grid={"ridge": [0.1]}, tuned={"inner_lr": [0.1]})
    other = one.changed(**brief)
    assert {s for s in STAGES if one.settings(s, 0) != other.settings(s, 0)} == {"tune", "grid"}
    tasks = {stage: other.run_config({}, 0, stage).training.tasks for stage in STAGES}
    assert tasks == {stage: 5 if stage == "tune" else None for stage in STAGES}
    assert {one.run_config({}, 0, stage) for stage in STAGES} == {one.run_config({}, 0)}


def test_the_name_of_a_sweep_contains_budget_and_seed():
    assert study().sweep_name(1) == "s-10steps-seed1"
    assert study(training=TrainingConfig(tasks=9)).sweep_name(0) == "s-9tasks-seed0"


@pytest.mark.parametrize("module", STUDIES)
def test_studies_search_the_hyperparameters_that_the_paper_fixes(module):
    assert module.STUDY.name == module.__name__.rpartition(".")[2]
    assert set(module.STUDY.space) == {
        "inner_lr", "outer_lr", "inner_steps", "cg_steps", "task_batch", "ridge"
    }  # fmt: skip


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_studies_named_like_their_files(path):
    assert read_study(path).name == path.stem


def test_the_factorial_example_has_every_combination_with_two_seeds():
    example = read_study(EXAMPLES / "k_by_n.yaml")
    found = [[tuple(params.values()) for params in cell] for cell in grid_cells(example)]
    steps = itertools.product((1, 5, 20), (1, 5, 20))
    assert found == [[(k, n, lr) for lr in (0.3, 1.0)] for k, n in steps]
    assert example.seeds == 2


def test_studies_survive_a_round_trip_through_yaml(tmp_path):
    for path in EXAMPLES.glob("*.yaml"):
        example = read_study(path)
        text = yaml.safe_dump(example.model_dump(mode="json"), sort_keys=False)
        assert read_study(write(tmp_path, text)) == example


@given(
    shots=st.integers(1, 4),
    queries=st.integers(1, 4),
    algorithm=st.sampled_from(["memory_reduced", "anil"]),
    norm=st.sampled_from(["batch", "group"]),
    low=st.integers(1, 20),
    step=st.integers(1, 20),
    steps=st.integers(0, 5),
)
def test_a_range_of_chunks_is_accepted_if_every_chunk_is_valid(
    shots, queries, algorithm, norm, low, step, steps
):
    data = DataConfig(ways=2, shots=shots, queries=queries)
    made = study(data=data, learner=LearnerConfig(algorithm=algorithm, norm=norm), space={})
    high = low + steps * step

    def accepted(chunk: int) -> bool:
        try:
            made.run_config({"chunk": chunk}, seed=0)
        except InputError:
            return False
        return True

    expected = all(map(accepted, range(low, high + 1, step)))
    try:
        made.changed(space={"chunk": {"low": low, "high": high, "step": step}})
    except InputError:
        assert not expected
    else:
        assert expected


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 10**11}, "trials: input should be less than or equal to 100000"),
        ({"seeds": 10**11}, "seeds: input should be less than or equal to 1000"),
        ({"space": {"chunk": {"low": 1, "high": 10**9}}}, "space: chunk=1: learner.chunk 1 would"),
        ({"grid": {"ridge": [0.1 * n for n in range(1, 1001)], "cg_steps": [*range(1000)],
                   "inner_steps": [*range(1000)]}}, "1,000,000,000 combinations with 3 seeds"),
        ({"grid": {"ridge": [0.1, 1]}, "tuned": {"cg_steps": [*range(1000)],
          "filters": [*range(1, 1001)]}}, "2 combinations with 3 seeds and 1,000,000 tuned values"),
        ({"space": {"task_batch": {"low": 1, "high": 10**9}}}, "less than or equal to 10000"),
        ({"learner": {"inner_steps": 10**9}}, "inner_steps: input should be less than"),
    ],
)  # fmt: skip
def test_absurd_sizes_are_refused_within_a_second(changes, said):
    plain = study()
    begun = time.process_time()
    with pytest.raises(InputError, match=re.escape(said)) as refusal:
        plain.changed(**changes)
    assert time.process_time() - begun < 1
    assert "\n" not in refusal.value.message


def test_a_huge_range_of_chunks_is_checked_quickly():
    free = study(learner=LearnerConfig(norm="group"))
    begun = time.process_time()
    free.changed(space={"chunk": {"low": 1, "high": 10**9}})
    assert time.process_time() - begun < 1


def test_a_python_study_given_as_yaml_is_reported_as_a_program():
    with pytest.raises(InputError, match=re.escape("python sweeps/cifar_fs.py")):
        read_study(Path("sweeps/cifar_fs.py"))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("Study(name='a b', data=DATA, training=BUDGET)", "Error: Study: name: letters, digits"),
        pytest.param(
            "Study(name='s', data=DATA, training=BUDGET).changed(trials=0)",
            "Error: study s: trials",
            marks=pytest.mark.thorough,
        ),
    ],
)
def test_an_invalid_python_study_is_reported_in_one_line(tmp_path, made, said):
    script = tmp_path / "study.py"
    script.write_text(
        "from memmeta.config import DataConfig, TrainingConfig\n"
        "from sweeps.engine.command_line import main\n"
        "from sweeps.engine.study.study import Study\n"
        "DATA, BUDGET = DataConfig(), TrainingConfig(iterations=1)\n"
        f"main({made})\n"
    )
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_other_data_sets_do_not_change_settings_and_runs():
    plain, other = study(), study(evaluate_on=["fc100", "omniglot"])
    assert other.settings("confirm", 0) == plain.settings("confirm", 0)
    assert other.run_config({}, 1, "confirm").key == plain.run_config({}, 1, "confirm").key
    assert other.sweep_name(0) == plain.sweep_name(0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"evaluate_on": ["fc10"]}, "fc10.*did you mean fc100"),
        ({"evaluate_on": ["glyphs"]}, "glyphs is scored once"),
        ({"evaluate_on": ["fc100", "fc100"]}, "fc100 is scored once"),
        ({"evaluate_on": ["sinusoid"]}, "sinusoid has no classes"),
        ({"evaluate_on": ["fc100"], **SINUSOID}, "models of sinusoid take points"),
        ({"evaluate_on": "fc100"}, "valid tuple"),
    ],
)
def test_other_data_sets_that_cannot_be_scored_are_refused(changes, said):
    with pytest.raises(ValidationError, match=f"evaluate_on\n.*{said}"):
        study(**changes)
