"""`memmeta sweeps`."""

import json
from pathlib import Path

import click
from rich.console import Console

from memmeta.command_line import Group
from memmeta.errors import FailedError, InputError, MessageError
from memmeta.system.files import resolved
from memmeta.system.stopping import STOP
from memmeta.system.units import human_size
from sweeps.engine.command_line import ledger_option
from sweeps.engine.display import sweep_list
from sweeps.engine.inventory.listing import StoredSweep, find_sweep, stored_sweeps
from sweeps.engine.inventory.removal import remove
from sweeps.engine.stores.masking import masked
from sweeps.engine.stores.options import store_options
from sweeps.engine.stores.store import default_uri


class _ListByDefault(Group):
    """A group whose command `list` runs if no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault, epilog="Example: memmeta sweeps --storage runs")
def sweeps() -> None:
    """List the sweeps of a storage folder, or remove one.

    Without a command, and with the options of `list`, it lists them.
    """


@sweeps.command("list", epilog="Example: memmeta sweeps list --json")
@store_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of flat objects.")
def list_(storage: Path, tracking_uri: str | None, as_json: bool) -> None:
    """List the sweeps: state, trials, size of the folder, and when they last ran.

    A stopped sweep continues when its command runs again.
    """
    storage = resolved(storage)
    found = _read(storage, tracking_uri or default_uri(storage))
    if as_json:
        click.echo(json.dumps(sweep_list.rows(found), indent=1))
    elif found:
        sweep_list.show(Console(highlight=False, markup=False, emoji=False), found)
    else:
        click.echo(f"no sweeps in {storage}")


@sweeps.command(epilog="Example: memmeta sweeps rm glyphs-600tasks-seed0 --storage runs")
@click.argument("name")
@store_options
@ledger_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(name: str, storage: Path, tracking_uri: str | None, ledger: str | None, yes: bool) -> None:
    """Remove the sweep NAME: its folder, its runs in MLflow, and its record in a database.

    NAME is the name of a sweep, or of a study that has a single sweep.

    In an SQLite database, runs and their files are removed permanently. A server keeps deleted runs
    until its `mlflow gc`. The experiment stays. A running sweep is refused.
    """
    storage = resolved(storage)
    uri = tracking_uri or default_uri(storage)
    found = find_sweep(_read(storage, uri), name, str(storage))
    if not yes and not _confirmed(found, uri):
        click.echo("nothing was removed")
        return
    removed = False
    try:
        for step in remove(found, uri, ledger):
            click.echo(step)
            removed = True
    except MessageError as error:
        if not removed:
            raise
        raise FailedError(
            f"{error.message}; run the same command again to remove the rest of {found.name}"
        ) from None


def _read(storage: Path, uri: str) -> list[StoredSweep]:
    with Console(stderr=True).status("Reading the sweeps ..."):
        return stored_sweeps(storage, uri)


def _confirmed(sweep: StoredSweep, uri: str) -> bool:
    """Ask whether to remove a sweep."""
    parts = [f"{sweep.folder} ({human_size(sweep.size)})"] if sweep.folder else []
    if sweep.run:
        parts.append(f"{len(sweep.trials) + 1} runs in {masked(uri)}")
    try:
        return click.confirm(f"Remove {sweep.name}: {' and '.join(parts)}?")
    except click.Abort:
        if STOP.requested:
            raise
        raise InputError("nobody to ask; give --yes to remove without asking") from None
