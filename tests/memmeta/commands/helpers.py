import re

import yaml

TINY = {
    "data": {"name": "glyphs", "shots": 1, "queries": 1, "eval_queries": 2},
    "learner": {"filters": 4, "inner_steps": 2, "cg_steps": 2, "task_batch": 2},
    "training": {"iterations": 4, "evaluations": 2, "val_tasks": 6},
}


def write(path, content):
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def final_accuracy(output: str) -> str:
    return re.search(r"accuracy: +([\d.]+ ± [\d.]+ %)", output).group(1)
