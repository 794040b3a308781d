"""A study with its own data set, network and algorithm: python examples/own_study.py."""

import random
from math import cos, pi, sin
from pathlib import Path

from PIL import Image, ImageDraw

from sweeps import Study, choice, loguniform

CORNERS = {"train": (3, 4, 6, 8), "val": (5, 10), "test": (7, 12)}


def draw(folder: Path) -> None:
    """Draw polygons, filled and not, as folder/<split>/<class>/<number>.png."""
    for split, numbers in CORNERS.items():
        for corners, filled in [(n, filled) for n in numbers for filled in (0, 255)]:
            here = folder / split / f"{corners}_{'filled' if filled else 'outline'}"
            here.mkdir(parents=True, exist_ok=True)
            for index in range(30):
                rng = random.Random(f"{here.name} {index}")
                turn, radius = rng.uniform(0, 2 * pi), rng.uniform(7, 12)
                angles = [turn + 2 * pi * k / corners for k in range(corners)]
                image = Image.new("L", (28, 28))
                outline = [(14 + radius * cos(a), 14 + radius * sin(a)) for a in angles]
                ImageDraw.Draw(image).polygon(outline, fill=filled, outline=255)
                image.save(here / f"{index:02}.png")


STUDY = Study(
    name="own_study",
    data={"name": "own_code:POLYGONS", "ways": 3, "shots": 1, "eval_queries": 5},
    learner={"backbone": "own_code:NETWORK", "filters": 8, "inner_steps": 5, "task_batch": 4},
    training={"tasks": 200, "evaluations": 2, "val_tasks": 50, "test_tasks": 50},
    space={
        "algorithm": choice(["memory_reduced", "own_code:clipped"]),
        "inner_lr": loguniform(0.1, 1.0),
    },
    sampler={"name": "tpe", "n_startup_trials": 2},
    seeds=1,
)

if __name__ == "__main__":
    draw(Path("data/polygons"))
    result = STUDY.run(trials=4)
    print(result.trials()[["stage", "algorithm", "inner_lr", "value"]])
    result.report("report")
