"""`memmeta export`."""

from pathlib import Path

import click

from analysis.command_line import chosen_sweep, say, store_arguments, study_argument
from memmeta.command_line import Command
from memmeta.errors import InputError
from memmeta.system.files import resolved
from memmeta.system.units import Size
from sweeps.engine.stores.store import default_uri


@click.command(cls=Command, epilog="Example: memmeta export cifar_fs --top 3 --out best.yaml")
@study_argument
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Maximum number of configs. Default: 3; with --pareto: the whole front.",
)
@click.option(
    "--max-memory", type=Size(), help="Only trials with at most this peak memory, such as 200MiB."
)
@click.option("--pareto", is_flag=True, help="Only the Pareto front of metric and peak memory.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("best.yaml"),
    show_default=True,
    help="Output file, .yaml or .json; an existing file is replaced.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    help="Also write the best confirmed model to this file, for `memmeta predict` and `evaluate`.",
)
def export(
    study: str,
    storage: Path,
    tracking_uri: str | None,
    top: int | None,
    max_memory: int | None,
    pareto: bool,
    out: Path,
    model: Path | None,
) -> None:
    """Write the best configs of STUDY to a file for `memmeta train`.

    The configs are selected from stages explore and search, and sorted from best to worst. The
    file contains their results, the results for fresh seeds of stage confirm, and a prediction
    for one more seed, which `verify` tests.

    --model writes a checkpoint as well: that of the config with the best mean over fresh seeds on
    validation tasks, trained with the best of these seeds.
    """
    from analysis import export as exporting
    from analysis.model import command_for, read_model
    from analysis.output import write_file

    exporting.check_suffix(out)
    if model and resolved(model) == resolved(out):
        raise InputError(f"--model {model}: is the file of --out, too; two names are expected")
    sweep = chosen_sweep(study, storage, tracking_uri)
    if top is None and not pareto:
        top = exporting.TOP
    selection = exporting.Selection(top, max_memory, pareto)
    store = store_arguments(storage, tracking_uri)
    if model:
        # Before anything is written: the sweep may have no confirmed model.
        content = read_model(tracking_uri or default_uri(storage), sweep)
        write_file(model, content)
    exporting.export_best(sweep, selection, out, store, say=say)
    click.echo(f"wrote {out}; train the best: memmeta train {out}")
    if model:
        click.echo(f"wrote {model}; use it: {command_for(model, sweep)}")
