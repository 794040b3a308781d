"""What a report is made of, and how it becomes one HTML page with its figures and data as files."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from matplotlib import rc_context
from matplotlib.figure import Figure as Drawing

from analysis.records.csv_text import csv_text
from memmeta.errors import InputError
from memmeta.system import files
from sweeps.engine.display.table import short

_DOTS_PER_INCH = 200


@dataclass(frozen=True)
class Heading:
    """Begins a part of a section."""

    text: str
    """A few words."""


@dataclass(frozen=True)
class Table:
    """Cells as they are shown. The first column names the row."""

    caption: str
    """What the numbers are, and what their intervals cover."""
    columns: Sequence[str]
    """Headings."""
    rows: Sequence[Sequence[str]]
    """A cell a column."""
    folded: bool = False
    """Whether the reader has to open it: for long ones."""


@dataclass(frozen=True)
class Figure:
    """One panel: small enough to be read on a phone."""

    name: str
    """Of its files, without a suffix."""
    title: str
    """Stands above it."""
    alt: str
    """What it shows, for who cannot see it."""
    drawing: Drawing
    """To be drawn."""
    data: Sequence[Mapping[str, object]]
    """What is drawn, a line a point."""


@dataclass(frozen=True)
class Gallery:
    """Figures that are looked at together."""

    caption: str
    """How to read them."""
    figures: Sequence[Figure]
    """In reading order."""


Block = str | Heading | Table | Gallery
"""A paragraph, a heading, a table or figures."""


@dataclass(frozen=True)
class Section:
    """One question of a study, and its answer."""

    title: str
    """Names the question."""
    finding: str
    """The answer in a sentence or two, for the top of the page."""
    blocks: Sequence[Block] = field(default_factory=tuple)
    """Paragraphs, tables and figures, in reading order."""

    @property
    def anchor(self) -> str:
        """Where it is on the page."""
        return "-".join(self.title.lower().split())


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    """Names the study."""
    lead: str
    """What it is a report of."""
    sections: Sequence[Section]
    """In reading order."""
    footer: str
    """Where it comes from."""

    @property
    def figures(self) -> list[Figure]:
        """All of them."""
        galleries = (block for section in self.sections for block in section.blocks)
        return [f for block in galleries if isinstance(block, Gallery) for f in block.figures]


def cell(value: object) -> str:
    """A setting in a table: floats to three digits, nothing for None."""
    return "" if value is None else short(value)


def digits(value: float, count: int) -> str:
    """A measured number to so many digits; all that stand before the point, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 10**count - 0.5 else f"{value:.{count}g}"


def sentence(text: str) -> str:
    """`text` with a capital at its start."""
    return text[:1].upper() + text[1:]


def write(page: Page, folder: Path) -> list[Path]:
    """Write `report.html`, `figures/*.png` and `data/*.csv` into `folder`.

    The page holds its figures itself and asks no network for anything.

    Returns:
        What was written.

    Raises:
        InputError: the folder cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["svg"] = _svg
    environment.tests["paragraph"] = lambda block: isinstance(block, str)
    environment.tests["heading"] = lambda block: isinstance(block, Heading)
    environment.tests["table"] = lambda block: isinstance(block, Table)
    html = environment.get_template("page.html.jinja").render(page=page)
    content = {folder / "report.html": html.encode()}
    for figure in page.figures:
        content[folder / "figures" / f"{figure.name}.png"] = _drawn(figure, "png")
        content[folder / "data" / f"{figure.name}.csv"] = csv_text(figure.data).encode()
    try:
        for path, data in content.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with files.whole(path) as file:
                file.write(data)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    return list(content)


def _svg(figure: Figure) -> str:
    """The address of an image that is its own content."""
    return "data:image/svg+xml;base64," + base64.b64encode(_drawn(figure, "svg")).decode()


def _drawn(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    # Without a date, and with names that are not random, the same drawing is the same file.
    metadata = {"Date": None} if kind == "svg" else {}
    with rc_context({"svg.hashsalt": figure.name}):
        figure.drawing.savefig(content, format=kind, dpi=_DOTS_PER_INCH, metadata=metadata)
    return content.getvalue()
