"""Code of users that a study names: copies of it travel with the sweep, and workers import them.

The copies are in the sweep's folder, which all nodes share. Edits during a sweep do not affect its
workers, and other machines need no files of the user. Ray's runtime environment is not used: if the
program has called `ray.init`, it can no longer be changed.
"""

import ast
import hashlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from memmeta.algorithms import ALGORITHMS
from memmeta.data import DATA_SETS
from memmeta.errors import InputError
from memmeta.networks import BACKBONES, HEADS
from memmeta.registry import ImportPath, Registry, import_own
from sweeps.engine.study.dimension import described
from sweeps.engine.study.study import Study

_MOST_BYTES = 20 * 2**20
"""Maximum size of a module that travels. Larger folders hold data, or are packages to install."""

_MOST_FILES = 2000
"""Maximum number of files of a module that travels."""

_OURS = frozenset(("memmeta", "sweeps", "analysis"))
"""Packages that every node has. `preflight` compares them."""

_INSTALLED = frozenset(("site-packages", "dist-packages"))
"""Folders that package managers install into."""


class OwnCode(NamedTuple):
    """The code of users that the trials of a sweep import."""

    paths: tuple[ImportPath, ...] = ()
    """The objects that the study names."""
    folder: Path | None = None
    """Folder with copies of the modules that are not installed; None if there are none."""
    digest: str | None = None
    """12 hex digits that identify the content of the folder."""
    packages: tuple[tuple[str, str], ...] = ()
    """Name and version of the installed packages with such objects."""

    def make_importable(self) -> None:
        """Let this process import the copies, before anything else of the same name."""
        if self.folder and str(self.folder) not in sys.path:
            sys.path.insert(0, str(self.folder))

    def problems(self) -> list[str]:
        """Why this process cannot import the objects; empty if it can."""
        self.make_importable()
        problems = []
        for path in self.paths:
            try:
                import_own(path)
            except ValueError as error:
                problems.append(str(error))
        return [*dict.fromkeys(problems)]


NO_OWN_CODE = OwnCode()
"""The code of users of a study that names none."""


def own_code(study: Study, folder: Path) -> OwnCode:
    """Copy the code that a study names into the folder of its sweep.

    Modules and packages that are not installed are copied, and so are the ones that they import.
    Nodes must have installed packages in the same version.

    Args:
        study: the study.
        folder: the sweep's folder.

    Raises:
        InputError: a module is too large, or an object is known to this process only.
        OSError: the folder cannot be written.
    """
    paths = import_paths(study)
    names = [_top(path) for path in paths]
    modules = own_modules(names)
    packages = _packages(name for name in names if name not in modules)
    if not modules:
        return OwnCode(paths, packages=packages)
    files = {name: _files(name, place) for name, place in modules.items()}
    digest = _digest(modules, files)
    copies = folder / "code" / digest
    if not copies.exists():
        _copy(modules, files, copies)
    return OwnCode(paths, copies, digest, packages)


def import_paths(study: Study) -> tuple[ImportPath, ...]:
    """The import paths of all objects that trials of a study may use, except built-in ones.

    Raises:
        InputError: another process cannot import an object.
    """
    named: list[tuple[Registry[Any], str]] = [(DATA_SETS, study.data.name)]
    for field, registry in (("algorithm", ALGORITHMS), ("backbone", BACKBONES), ("head", HEADS)):
        values = [getattr(study.learner, field), *study.grid.get(field, ())]
        values += study.tuned.get(field, ())
        values += described(study.space[field]) if field in study.space else ()
        named += [(registry, value) for value in values]
    try:
        found = [registry.path_for_others(name) for registry, name in named]
    except ValueError as error:
        raise InputError(f"study {study.name}: {error}") from None
    paths = tuple(dict.fromkeys(path for path in found if path is not None))
    for path in paths:
        if _top(path) == "__main__":
            raise InputError(
                f"study {study.name}: {path}: workers cannot import the script that runs. Name its "
                "file, as in my_script:object, or move the object into a module"
            )
    return paths


def own_modules(names: Iterable[str]) -> dict[str, Path]:
    """Find the modules that are not installed, among the given ones and their imports.

    Args:
        names: names of modules without dots.

    Returns:
        The file or folder of each.
    """
    found: dict[str, Path] = {}
    pending = [*names]
    while pending:
        name = pending.pop()
        place = None if name in found else _place(name)
        if place is not None:
            found[name] = place
            pending += _imported_names(place)
    return dict(sorted(found.items()))


def _top(path: str) -> str:
    """The first part of an import path."""
    return path.partition(":")[0].partition(".")[0]


def _place(name: str) -> Path | None:
    """The file or folder of a module that is not installed; None for other modules."""
    if name in _OURS or name in sys.stdlib_module_names:
        return None
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    place = Path([*(spec.submodule_search_locations or ()), spec.origin or ""][0])
    return place if place.exists() and not _INSTALLED & {*place.parts} else None


def _imported_names(place: Path) -> Iterator[str]:
    """The first parts of the names of the modules that the files of a module import."""
    for path in [place] if place.is_file() else place.rglob("*.py"):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError, OSError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (_top(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield _top(node.module)


def _files(name: str, place: Path) -> list[Path]:
    """The files of a module, without hidden and compiled ones.

    Raises:
        InputError: they are too many or too large.
    """
    if place.is_file():
        return [place]
    files: list[Path] = []
    size = 0
    for parent, folders, names in os.walk(place):
        folders[:] = [each for each in folders if each[0] != "." and each != "__pycache__"]
        here = [Path(parent, each) for each in names if each[0] != "."]
        files += here
        size += sum(path.stat().st_size for path in here)
        if len(files) > _MOST_FILES or size > _MOST_BYTES:
            raise InputError(
                f"{place}: module {name} is too large to travel with a sweep, which takes "
                f"{_MOST_FILES:,} files and {_MOST_BYTES >> 20} MiB: move data out of its folder, "
                "or install it as a package on every machine"
            )
    return sorted(files)


def _digest(modules: dict[str, Path], files: dict[str, list[Path]]) -> str:
    digest = hashlib.sha256()
    for name, place in modules.items():
        for path in files[name]:
            digest.update(f"{path.relative_to(place.parent)}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _copy(modules: dict[str, Path], files: dict[str, list[Path]], copies: Path) -> None:
    """Copy the files, completely or not at all: a killed driver leaves only a hidden folder."""
    partial = copies.with_name(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name, place in modules.items():
        for path in files[name]:
            copy = partial / path.relative_to(place.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    partial.rename(copies)


def _packages(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The installed packages that these modules belong to, with their versions."""
    modules = {*names} - _OURS - sys.stdlib_module_names
    packages = metadata.packages_distributions() if modules else {}
    found = {package for name in modules for package in packages.get(name, ())}
    return tuple((package, metadata.version(package)) for package in sorted(found))
