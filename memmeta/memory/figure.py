"""The paper's figure of peak memory against K."""

from collections.abc import Sequence
from pathlib import Path

from memmeta.errors import InputError
from memmeta.memory.table import Row
from memmeta.system import palette
from memmeta.system.units import MIB

_COLOURS = {
    "memory_reduced": palette.BLUE,
    "anil": palette.GREEN,
    "itd_bio": palette.ORANGE,
    "maml": palette.RED,
}


def plot_peaks(rows: Sequence[Row], path: Path, title: str) -> None:
    """Plot peak memory against K. Methods with the same curve share a line and a label.

    Raises:
        InputError: the file cannot be written.
    """
    # Importing Matplotlib takes half a second, and no other command needs it.
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for same_curve in _same_curves(rows):
        first = same_curve[0]
        steps, peaks = zip(*((row.inner_steps, row.peak_bytes / MIB) for row in first), strict=True)
        axes.plot(
            steps,
            peaks,
            color=_COLOURS[first[0].algorithm],
            linestyle="-" if first[0].feature_reuse else "--",
            marker="s" if first[0].chunk else "o",
            clip_on=False,
        )
        axes.annotate(
            "\n".join(method_rows[0].method for method_rows in same_curve),
            (steps[-1], peaks[-1]),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            annotation_clip=False,
        )
    axes.set(
        title=title, xlabel="K, inner steps", ylabel="peak memory of a step, MiB", yscale="log"
    )
    axes.set_xticks(sorted({row.inner_steps for row in rows}))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the figure cannot be written ({error})") from None
    finally:
        plt.close(figure)


def _same_curves(rows: Sequence[Row]) -> list[list[list[Row]]]:
    """Group the rows by method, and the methods by curve.

    Curves that differ by less than 2 % look the same in the figure.
    """
    curves: list[list[list[Row]]] = []
    for method in dict.fromkeys(row.method for row in rows):
        method_rows = [row for row in rows if row.method == method]
        for curve in curves:
            pairs = zip(method_rows, curve[0], strict=False)
            if all(abs(a.peak_bytes / b.peak_bytes - 1) < 0.02 for a, b in pairs):
                curve.append(method_rows)
                break
        else:
            curves.append([method_rows])
    return curves
