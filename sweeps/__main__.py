"""`python -m sweeps run|doctor`: the commands `sweep` and `doctor` of `memmeta`."""

import click

import memmeta.system.interrupts  # noqa: F401
from memmeta.command_line import Group, run_command
from sweeps.commands.doctor import doctor
from sweeps.commands.sweep import sweep


@click.group(cls=Group)
def main() -> None:
    """Run sweeps."""


main.add_command(sweep, "run")
main.add_command(doctor)

if __name__ == "__main__":
    run_command(main, "python -m sweeps")
