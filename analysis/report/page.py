"""The elements of a report: a page has sections, a section has text, tables and figures."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure as Drawing


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str
    """A few words."""


@dataclass(frozen=True)
class Table:
    """A table of formatted cells. The first column names the row and stays in view."""

    title: str
    """What the table shows, in a few words."""
    columns: Sequence[str]
    """Headings, with units. They wrap at spaces and underscores."""
    rows: Sequence[Sequence[str]]
    """One cell per column. Cells wrap only if they are longer than `LONG_CELL`."""
    note: str = ""
    """Explains the numbers and what their intervals cover; says what is the same in all rows."""
    folded: bool = False
    """Whether the table is collapsed until the reader opens it."""

    @property
    def width(self) -> float:
        """Width without scrolling, in characters."""
        headings = (max(map(len, _HEADING_BREAKS.split(name))) for name in self.columns)
        cells = (max(map(len, column), default=0) for column in zip(*self.rows, strict=True))
        pairs = itertools.zip_longest(headings, cells, fillvalue=0)
        return sum(max(heading, min(cell, LONG_CELL)) + _PADDING for heading, cell in pairs)


LONG_CELL = 20
"""Maximum number of characters in one line of a cell."""

_HEADING_BREAKS = re.compile(r"(?<!=) (?!=)|(?<=_)")
"""Where a heading wraps: after underscores, and at spaces but not those of `N = 1`."""

_PADDING = 1.6
"""Space beside a cell, in characters."""


@dataclass(frozen=True)
class Figure:
    """One panel, small enough for the screen of a phone."""

    name: str
    """Name of its files, without a suffix."""
    title: str
    """Title above the panel."""
    alt: str
    """Text alternative for readers who cannot see it."""
    drawing: Drawing
    """The Matplotlib figure."""
    data: Sequence[Mapping[str, object]]
    """The plotted data, one row per point."""


@dataclass(frozen=True)
class Gallery:
    """Figures that are shown together."""

    caption: str
    """How to read them."""
    figures: Sequence[Figure]
    """In reading order."""


@dataclass(frozen=True)
class InWords:
    """A sentence in place of figures that would show nothing. Their data are still written."""

    text: str
    """What the figures would show, and why they are not drawn."""
    figures: Sequence[Figure]
    """The figures that are not drawn."""


Block = str | Heading | Table | Gallery | InWords
"""A paragraph, a heading, a table, a group of figures, or a sentence in their place."""


@dataclass(frozen=True)
class Section:
    """One question about a sweep, with its answer."""

    title: str
    """Names the question."""
    finding: str
    """The answer in a sentence or two, repeated at the top of the page."""
    blocks: Sequence[Block] = field(default_factory=tuple)
    """Content in reading order."""

    @property
    def anchor(self) -> str:
        """The section's id on the page."""
        return _anchor(self.title)

    def anchor_of(self, heading: Heading) -> str:
        """The id of a heading of this section."""
        return f"{self.anchor}-{_anchor(heading.text)}"

    @property
    def headings(self) -> list[Heading]:
        """The headings within the section."""
        return [block for block in self.blocks if isinstance(block, Heading)]


def _anchor(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    """Name of the study."""
    lead: str
    """Scope of the report."""
    sections: Sequence[Section]
    """In reading order."""
    footer: str
    """How the report was made."""

    @property
    def figures(self) -> list[Figure]:
        """The figures of all sections that are drawn."""
        return [f for b in self._blocks if isinstance(b, Gallery) for f in b.figures]

    @property
    def in_words(self) -> list[Figure]:
        """The figures of all sections that are said in words."""
        return [f for b in self._blocks if isinstance(b, InWords) for f in b.figures]

    @property
    def _blocks(self) -> list[Block]:
        return [block for section in self.sections for block in section.blocks]
