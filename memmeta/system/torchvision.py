"""Import of torchvision, for packages that need it."""


def import_torchvision() -> None:
    """Import torchvision, also beside a build of PyTorch for which it was not compiled.

    The compiled operators of torchvision do not load with a CPU build of PyTorch, and importing it
    then fails because two of them are undefined. Data sets and models of classifiers do not use
    them, so it is enough to declare them.
    """
    try:
        import torchvision
    except RuntimeError:
        import torch

        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
        import torchvision  # noqa: F401
