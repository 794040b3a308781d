"""`memmeta predict`: classify image files."""

from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import track

from memmeta import checkpoint
from memmeta.classifier import Classifier
from memmeta.command_line import (
    Command,
    device_option,
    failures_in_one_line,
    threads_option,
    trust_code_option,
)
from memmeta.data.photos import SUFFIXES, find_classes, find_images, read_stored
from memmeta.errors import InputError
from memmeta.run import load
from memmeta.system import files
from memmeta.system.csv_text import csv_text
from memmeta.system.runtime import configure_process

_EXAMPLE = (
    "Example: memmeta predict model.pt --support birds/ --query unlabelled/ --out predictions.csv"
)


@click.command(cls=Command, epilog=_EXAMPLE)
@click.argument("checkpoint_file", type=click.Path(path_type=Path))
@click.option(
    "--support", required=True, type=click.Path(path_type=Path),
    help="Folder with a folder of labelled images for each class.",
)  # fmt: skip
@click.option(
    "--query", required=True, type=click.Path(path_type=Path),
    help="Folder with the images to classify, and subfolders.",
)  # fmt: skip
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="CSV file for the predictions."
)
@device_option
@threads_option
@trust_code_option
def predict(
    checkpoint_file: Path,
    support: Path,
    query: Path,
    out: Path,
    device: str | None,
    threads: int | None,
    trust_code: bool,
) -> None:
    """Adapt CHECKPOINT_FILE to the classes of labelled images, and classify other images.

    The CSV file has a row for each image: its path below the query folder, the predicted class, and
    the probability of each class. With norm batch, as in the paper, images are classified together
    and influence each other; give all of them at once.
    """
    _check_out(out, checkpoint_file)
    configure_process(threads)
    run = load(checkpoint_file, device=device, trust_code=trust_code)
    classes, (paths, others) = find_classes(support), find_images(query)
    if not paths:
        raise InputError(f"{query}: no images ({' '.join(SUFFIXES)})")
    _warn_of([*others, *(path for found in classes.values() for path in found.others)])
    checkpoint.check_writable(out)
    with failures_in_one_line():
        labelled = [(path, name) for name, found in classes.items() for path in found.images]
        images = read_stored((path for path, _ in labelled), run.input_shape)
        classifier = run.adapt(images, [name for _, name in labelled])
        probabilities = _probabilities(classifier, paths, run.input_shape)
    rows = [
        {
            "file": path.relative_to(query).as_posix(),
            "predicted": classifier.classes[row.argmax()],
            **{f"p({name})": p for name, p in zip(classifier.classes, row.tolist(), strict=True)},
        }
        for path, row in zip(paths, probabilities, strict=True)
    ]
    # File names may contain bytes that are no characters.
    files.write_file(out, csv_text(rows).encode("utf-8", "backslashreplace"))
    click.echo(f"wrote {out}: {len(rows)} images, {len(classes)} classes")


def _check_out(out: Path, checkpoint_file: Path) -> None:
    """Refuse to replace the model or an image with the predictions."""
    if out.suffix.lower() in SUFFIXES or files.resolved(out) == files.resolved(checkpoint_file):
        raise InputError(
            f"--out {out}: is an image or the model; the name of a CSV file is expected"
        )


def _warn_of(others: list[Path]) -> None:
    """Say that files were left out, if there are any."""
    if others:
        count = "1 file" if len(others) == 1 else f"{len(others)} files"
        click.echo(f"left out, not images: {count}, such as {others[0]}", err=True)


def _probabilities(classifier: Classifier, paths: list[Path], shape: tuple[int, ...]) -> np.ndarray:
    """The probabilities of each file, [n, classes]. One group of images is in memory at a time."""
    probabilities = np.empty((len(paths), len(classifier.classes)))
    console = Console(stderr=True)
    groups = track(
        classifier.groups(len(paths)),
        "groups of images",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for group in groups:
        probabilities[group] = classifier.predict_proba(read_stored(paths[group], shape))
    return probabilities
