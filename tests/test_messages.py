"""Messages of the Python API name no options of the command line: Python users have none."""

import ast
import re

from tests import ROOT

COMMANDS = (
    "command_line.py",
    "commands/",
    "engine/inventory/removal.py",
    "analysis/verify.py",
    "memmeta/data/",
)
"""Code that mostly commands call."""

FUNCTIONS = ("parse_region",)
"""Functions that only commands call."""

FOR_BOTH = re.compile(r"\b(memmeta|mlflow) \w|in Python")
"""Messages with a whole command, or with the option's name in Python."""


def modules():
    """The modules that Python users call, and their place."""
    for part in ("memmeta", "sweeps", "analysis"):
        for path in sorted((ROOT / part).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            if not any(other in place for other in COMMANDS):
                yield place, ast.parse(path.read_text("utf-8"))


def messages():
    """The place and the text of every error, as far as it is in the source."""
    for place, module in modules():
        functions = (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef))
        skipped = {node for f in functions if f.name in FUNCTIONS for node in ast.walk(f)}
        for node in ast.walk(module):
            is_error = isinstance(node, ast.Call) and "Error" in getattr(node.func, "id", "")
            if is_error and node not in skipped:
                constants = (each for each in ast.walk(node) if isinstance(each, ast.Constant))
                yield f"{place}:{node.lineno}", "".join(str(each.value) for each in constants)


def test_no_message_names_an_option():
    found = list(messages())
    assert len(found) > 100
    naming = [(place, text) for place, text in found if re.search(r"(^|\W)--[a-z]", text)]
    assert [each for each in naming if not FOR_BOTH.search(each[1])] == []
