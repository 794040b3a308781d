"""Comparison of the contenders' gradients with their references."""

import math
from dataclasses import replace

import torch

from contenders.contender import Contender, all_contenders, from_memmeta
from contenders.libraries import one_line
from contenders.work import Setting

AGREEMENT = 1e-8
"""Largest accepted relative difference of a gradient from its reference, in float64."""

CHECKED_SIZE, CHECKED_TASKS = 28, 2
"""Maximum image size and number of tasks for the comparison of gradients."""

CONVERGED = {"inner_steps": 300, "cg_steps": 300, "ridge": 1.0}
"""Settings at which the gradients of ANIL and memory_reduced for theta agree."""


def compare(setting: Setting, maml_steps: int, left_out: dict[str, str]) -> dict[str, float]:
    """Relative difference of each contender's gradient from its reference, by name.

    Uses small images and float64.

    Args:
        setting: the computation.
        maml_steps: K of MAML.
        left_out: names that are excluded, with reasons. Contenders that differ or fail are added.
    """
    contenders = all_contenders(small(setting), maml_steps, left_out)
    for contender in contenders:
        try:
            contender()
        except Exception as error:  # an old library can fail in any way on this PyTorch
            if contender.ours:
                raise
            left_out[contender.name] = f"fails: {one_line(error)}"
    references = {c.algorithm: c for c in reversed(contenders) if c.ours}
    differences = {
        c.name: _difference(c, references[c.algorithm])
        for c in contenders
        if c.name not in left_out
    }
    for name, difference in differences.items():
        # `not <=` refuses NaN, too.
        if not difference <= AGREEMENT:
            left_out[name] = f"its gradient differs by {difference:.0e}"
    return differences


def small(setting: Setting) -> Setting:
    """The setting on which gradients are compared."""
    tasks = min(CHECKED_TASKS, setting.run.learner.task_batch)
    size = min(CHECKED_SIZE, setting.image_size)
    return replace(setting.changed(task_batch=tasks), image_size=size, dtype=torch.float64)


def _difference(contender: Contender, reference: Contender) -> float:
    """Relative difference for theta, or for phi^0 if the reference learns it and it is larger."""
    own, expected = contender.gradients(), reference.gradients()
    if len(own) < len(expected):
        return math.inf
    pairs = zip(own, expected, strict=False)
    # Python's max can skip NaN, PyTorch's does not.
    return float(torch.stack([(a - b).norm() / b.norm() for a, b in pairs]).max())


def converged_difference(setting: Setting) -> float:
    """Difference of memory_reduced's gradient for theta from ANIL's after convergence of both."""
    anil = from_memmeta("", small(setting.changed(**CONVERGED)))
    reduced = from_memmeta("", small(setting.changed(**CONVERGED, algorithm="memory_reduced")))
    anil()
    reduced()
    return _difference(anil, reduced)
