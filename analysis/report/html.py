"""Write a page as one self-contained HTML file, with its figures and their data as files."""

import base64
import io
from pathlib import Path

import jinja2
from matplotlib import rc_context

from analysis.report.page import LONG_CELL, Figure, Heading, InWords, Page, Table
from memmeta.system.csv_text import csv_text
from memmeta.system.files import write_file

_DOTS_PER_INCH = 200


def write_page(page: Page, folder: Path) -> list[Path]:
    """Write `report.html`, `figures/*.png` and `data/*.csv` into `folder`.

    The HTML file contains its figures and loads nothing from the network.

    Returns:
        The files that were written.

    Raises:
        InputError: a file cannot be written.
    """
    content = {folder / "report.html": _html(page).encode()}
    for figure in page.figures:
        content[folder / "figures" / f"{figure.name}.png"] = _image(figure, "png")
    for figure in [*page.figures, *page.in_words]:
        content[folder / "data" / f"{figure.name}.csv"] = csv_text(figure.data).encode()
    for path, data in content.items():
        write_file(path, data)
    return list(content)


def _html(page: Page) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"svg": _svg_url, "long_cell": LONG_CELL}
    environment.tests["paragraph"] = lambda block: isinstance(block, str)
    environment.tests["heading"] = lambda block: isinstance(block, Heading)
    environment.tests["table"] = lambda block: isinstance(block, Table)
    environment.tests["in_words"] = lambda block: isinstance(block, InWords)
    return environment.get_template("page.html.jinja").render(page=page)


def _svg_url(figure: Figure) -> str:
    """A data URL that contains the figure."""
    return "data:image/svg+xml;base64," + base64.b64encode(_image(figure, "svg")).decode()


def _image(figure: Figure, file_format: str) -> bytes:
    content = io.BytesIO()
    # No date and no random ids, so that the same drawing gives the same file.
    metadata = {"Date": None} if file_format == "svg" else {}
    with rc_context({"svg.hashsalt": figure.name}):
        figure.drawing.savefig(content, format=file_format, dpi=_DOTS_PER_INCH, metadata=metadata)
    return content.getvalue()
