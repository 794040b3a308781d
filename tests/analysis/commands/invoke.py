"""Runs the commands on results in this process."""

from click.testing import CliRunner, Result

from analysis.__main__ import main


def invoke(*args: object, columns: int = 80) -> Result:
    return CliRunner().invoke(main, list(map(str, args)), env={"COLUMNS": str(columns)})
