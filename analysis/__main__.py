"""`python -m analysis COMMAND`: the commands on results without the others of `memmeta`."""

import click

import memmeta.system.interrupts  # noqa: F401
from analysis.commands.compare import compare
from analysis.commands.export import export
from analysis.commands.report import report
from analysis.commands.trials import trials
from analysis.commands.verify import verify
from memmeta.command_line import Group, run_command


@click.group(cls=Group)
def main() -> None:
    """Show, compare, report, export and verify the results of sweeps.

    STUDY is the name of a study (cifar_fs), which selects its most recent sweep, or the full name
    of a sweep (cifar_fs-60steps-seed0).
    """


for _command in (trials, report, compare, export, verify):
    main.add_command(_command)

if __name__ == "__main__":
    run_command(main, "python -m analysis")
