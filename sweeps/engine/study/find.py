"""Find the study that a user names: one of memmeta's, a Python file, or a YAML file."""

import runpy
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import sweeps
from memmeta.config import described
from memmeta.errors import InputError, MessageError, did_you_mean, shortened, shown
from memmeta.registry import search_also
from memmeta.system.files import other_than_a_file, resolved, usable_path
from sweeps.engine.study.study import Study, read_study


def find_study(name: str) -> Study:
    """The study called `name`, or the study in the file `name`.

    A Python file is imported, so what is below `if __name__ == "__main__":` does not run. Its
    folder becomes importable, after installed packages. The study is its `STUDY`, or the only
    `Study` in it.

    Args:
        name: a study that comes with memmeta (`cifar_fs`), or a file (`my_study.py`,
            `my_study.yaml`).

    Raises:
        InputError: there is no such study or file, the file cannot be imported or is invalid, or
            it has no study or several.
    """
    names = study_names()
    if name in names:
        study: Study = import_module(f"sweeps.{name}").STUDY
        return study
    try:
        path = usable_path(name)
    except ValueError as error:
        raise InputError(f"study {shown(name)}: {error}") from None
    other = other_than_a_file(path)
    if other:
        raise InputError(f"{name}: {other}; the file of a study is expected, .py or .yaml")
    if path.is_file():
        return _imported(path) if path.suffix == ".py" else read_study(path)
    files = [*path.parent.glob("*.py"), *path.parent.glob("*.yaml"), *path.parent.glob("*.yml")]
    hint = did_you_mean(name, [*names, *map(str, files)])
    if path.suffix in (".py", ".yaml", ".yml") or len(path.parts) > 1:
        raise InputError(f"{name}: no such file{hint}")
    raise InputError(
        f"{name}: no such study{hint}, choose from {', '.join(names)}, or give the file of a "
        "study, .py or .yaml"
    )


def study_names() -> list[str]:
    """The names of the studies that come with memmeta: the modules of `sweeps` with a `STUDY`."""
    modules = (path for folder in sweeps.__path__ for path in Path(folder).glob("*.py"))
    return sorted(path.stem for path in modules if "\nSTUDY = " in path.read_text("utf-8"))


def _imported(path: Path) -> Study:
    """The study in a Python file."""
    search_also(path.parent)
    try:
        content = runpy.run_path(str(path), run_name=path.stem)
    except SystemExit:
        raise InputError(
            f'{path}: exits when it is imported; put its last part below if __name__ == "__main__":'
        ) from None
    except Exception as error:
        raise InputError(f"{_place(error, path)}: {_description(error)}") from None
    return _only_study(content, path)


def _only_study(content: dict[str, Any], path: Path) -> Study:
    """The `STUDY` in the content of a file, or else the only study."""
    named = content.get("STUDY")
    if isinstance(named, Study):
        return named
    studies = {name: value for name, value in content.items() if isinstance(value, Study)}
    if not studies:
        raise InputError(f"{path}: has no Study; assign one to STUDY")
    if len(studies) > 1:
        raise InputError(f"{path}: has several studies ({', '.join(studies)}); call one STUDY")
    return studies.popitem()[1]


def _place(error: Exception, path: Path) -> str:
    """The file and line of an error: the last line that ran in the study's folder."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}" if error.lineno else error.filename
    folder = resolved(path.parent)
    frames = traceback.extract_tb(error.__traceback__)
    files = ((frame, resolved(Path(frame.filename))) for frame in frames)
    own = [frame for frame, file in files if file.is_relative_to(folder) and file.is_file()]
    return f"{own[-1].filename}, line {own[-1].lineno}" if own else str(path)


def _description(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return f"{error.title}: {described(error)}"
    if isinstance(error, MessageError):
        return error.message
    text = str(error.msg if isinstance(error, SyntaxError) else error)
    return f"{type(error).__name__}: {shortened(text)}"
