import csv
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Drawing
from matplotlib.image import imread

from analysis.report import style
from analysis.report.html import write_page
from analysis.report.page import Figure, Gallery, Heading, Page, Section, Table
from memmeta.errors import InputError


def drawing() -> Drawing:
    with style.panel() as (figure, axes):
        axes.plot([1, 2], [3, 4])
    return figure


def made_up(text: str = "plain") -> Page:
    rows = [{"x": 1, "y": 3.5}, {"x": 2, "note": text}]
    figure = Figure("lines", text, text, drawing(), rows)
    table = Table(text, ["name", "value"], [[text, "1"]], folded=True)
    return Page(
        text,
        text,
        [Section("One question", text, [text, Heading(text), table, Gallery(text, [figure])])],
        text,
    )


class Text(HTMLParser):
    """The visible text of a page, and the addresses that it loads."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.read: list[str] = []
        self.loaded: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.read.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    write_page(made_up(), tmp_path)
    loaded = Text((tmp_path / "report.html").read_text()).loaded
    assert [address.partition(",")[0] for address in loaded] == [
        "#one-question",
        "data:image/svg+xml;base64",
    ]


def test_text_of_trials_is_escaped(tmp_path: Path) -> None:
    nasty = "<script>alert('1')</script> & \"x\""
    write_page(made_up(nasty), tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<script>" not in html
    assert Text(html).read.count(nasty) == 12


def test_every_figure_has_an_image_and_its_data(tmp_path: Path) -> None:
    write_page(made_up(), tmp_path)
    assert imread(tmp_path / "figures" / "lines.png").shape == (600, 800, 4)
    with (tmp_path / "data" / "lines.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"x": "1", "y": "3.5", "note": ""},
            {"x": "2", "y": "", "note": "plain"},
        ]


def test_reports_are_reproducible(tmp_path: Path) -> None:
    for name in "ab":
        write_page(made_up(), tmp_path / name)
    for path in ("report.html", "data/lines.csv", "figures/lines.png"):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_an_unwritable_folder_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_page(made_up(), tmp_path / "file")


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1, 40, {"1", "10"}),
        (0.03, 3, {"0.1", "1"}),
        (20, 300, {"20", "50", "100", "200"}),
        (95, 130, {"100"}),
        (1e-4, 1e-2, {"0.001"}),
    ],
)
def test_log_axes_have_a_few_plain_ticks(low: float, high: float, labels: set[str]) -> None:
    with style.panel() as (figure, axes):
        axes.plot([low, high], [1, 2])
        style.log_axis(axes, "x", low, high)
        figure.draw_without_rendering()
    shown = [
        tick.label1.get_text()
        for tick in axes.xaxis.get_major_ticks()
        if axes.get_xlim()[0] <= tick.get_loc() <= axes.get_xlim()[1]
    ]
    assert labels <= set(shown)
    assert 1 <= len(shown) <= 7
