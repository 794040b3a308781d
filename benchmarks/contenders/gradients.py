"""Whether all compute the same: gradients beside their references."""

import math
from dataclasses import replace

import torch

from contenders.everyone import Contender, everyone, from_memmeta
from contenders.libraries import one_line
from contenders.work import Setting

AGREEMENT = 1e-8
"""The most that a gradient may differ from its reference, relative and in float64."""

CHECKED_SIZE, CHECKED_TASKS = 28, 2
"""Height and width of images, and tasks, with which gradients are compared, at most."""

CONVERGED = {"inner_steps": 300, "cg_steps": 300, "ridge": 1.0}
"""Where ANIL's gradient for theta and memory_reduced's are the same."""


def compare(setting: Setting, maml_steps: int, left_out: dict[str, str]) -> dict[str, float]:
    """Of each, by name: how far its gradient is from its reference; small images, in float64.

    Args:
        setting: the work.
        maml_steps: K of MAML.
        left_out: libraries that are not there, with reasons. Who differs or fails is added.
    """
    contenders = everyone(small(setting), maml_steps, left_out)
    for contender in contenders:
        try:
            contender()
        except Exception as error:  # whatever a library does that is older than this PyTorch
            if contender.ours:
                raise
            left_out[contender.name] = f"fails: {one_line(error)}"
    references = {c.algorithm: c for c in reversed(contenders) if c.ours}
    found = {
        c.name: _difference(c, references[c.algorithm])
        for c in contenders
        if c.name not in left_out
    }
    for name, difference in found.items():
        # Not >, which NaN would pass.
        if not difference <= AGREEMENT:
            left_out[name] = f"its gradient differs by {difference:.0e}"
    return found


def small(setting: Setting) -> Setting:
    """What gradients are compared on."""
    tasks = min(CHECKED_TASKS, setting.run.learner.task_batch)
    size = min(CHECKED_SIZE, setting.image_size)
    return replace(setting.changed(task_batch=tasks), image_size=size, dtype=torch.float64)


def _difference(contender: Contender, reference: Contender) -> float:
    """Relative, of theta and of phi^0 where the reference learns it: the larger one."""
    mine, right = contender.gradients(), reference.gradients()
    if len(mine) < len(right):
        return math.inf
    pairs = zip(mine, right, strict=False)
    # Python's max may pass over NaN, PyTorch's does not.
    return float(torch.stack([(a - b).norm() / b.norm() for a, b in pairs]).max())


def converged_difference(setting: Setting) -> float:
    """How far memory_reduced's gradient for theta is from ANIL's, where both have converged."""
    anil = from_memmeta("", small(setting.changed(**CONVERGED)))
    reduced = from_memmeta("", small(setting.changed(**CONVERGED, algorithm="memory_reduced")))
    anil()
    reduced()
    return _difference(anil, reduced)
