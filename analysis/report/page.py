"""The elements of a report: a page has sections, a section has text, tables and figures."""

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
    """A table of formatted cells. The first column names the row."""

    caption: str
    """Explains the numbers and what their intervals cover."""
    columns: Sequence[str]
    """Headings."""
    rows: Sequence[Sequence[str]]
    """One cell per column."""
    folded: bool = False
    """Whether the table is collapsed until the reader opens it."""


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


Block = str | Heading | Table | Gallery
"""A paragraph, a heading, a table or a group of figures."""


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
        return "-".join(self.title.lower().split())


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
        """The figures of all sections."""
        blocks = (block for section in self.sections for block in section.blocks)
        return [f for block in blocks if isinstance(block, Gallery) for f in block.figures]
