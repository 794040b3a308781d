import csv
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Drawing
from matplotlib.image import imread

from analysis.report import style
from analysis.report.html import write_page
from analysis.report.page import (
    LONG_CELL,
    Figure,
    Gallery,
    Heading,
    InWords,
    Page,
    Section,
    Table,
)
from memmeta.errors import InputError


def drawing() -> Drawing:
    with style.panel() as (figure, axes):
        axes.plot([1, 2], [3, 4])
    return figure


def made_up(text: str = "plain") -> Page:
    rows = [{"x": 1, "y": 3.5}, {"x": 2, "note": text}]
    figure = Figure("lines", text, text, drawing(), rows)
    flat = Figure("flat", text, text, drawing(), rows)
    table = Table(text, ["name", "value"], [[text, "1"]], text, folded=True)
    blocks = [text, Heading("Part"), table, Gallery(text, [figure]), InWords(text, [flat])]
    return Page(text, text, [Section("One question", text, blocks)], text)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def values(self, name: str, *tags: str) -> list[str | None]:
        """The values of an attribute, in all elements or in those with one of `tags`."""
        return [a[name] for tag, a in self.found if name in a and (not tags or tag in tags)]


def elements(page: Page, folder: Path) -> Elements:
    write_page(page, folder)
    return Elements((folder / "report.html").read_text())


def test_the_page_is_self_contained(tmp_path: Path) -> None:
    found = elements(made_up(), tmp_path)
    loaded = [str(address) for address in found.values("src") + found.values("href")]
    assert {address.partition(",")[0] for address in loaded} == {
        "data:image/svg+xml;base64", "#findings", "#one-question", "#one-question-part",
    }  # fmt: skip
    assert not {"script", "link", "iframe"} & {tag for tag, _ in found.found}


def test_contents_lead_to_every_section(page: Page, written: Path) -> None:
    found = Elements((written / "report.html").read_text())
    targets = [str(address).removeprefix("#") for address in found.values("href", "a")]
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert set(targets) <= set(ids)
    assert {section.anchor for section in page.sections} <= set(targets)
    assert "sensitivity-peak-memory" in targets


def test_screen_readers_find_landmarks_and_names(written: Path) -> None:
    found = Elements((written / "report.html").read_text())
    tags = [tag for tag, _ in found.found]
    assert [tags.count(name) for name in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    assert all(found.values("alt", "img"))
    assert len(found.values("alt", "img")) == tags.count("img")
    assert set(found.values("scope", "th")) == {"col", "row"}
    assert len(found.values("scope", "th")) == tags.count("th")
    ids = set(found.values("id"))
    for name in ("aria-labelledby", "aria-describedby"):
        assert set(found.values(name)) <= ids
    # Tables that are scrolled can be reached with the keyboard.
    assert len(found.values("tabindex", "div")) == tags.count("table")


def test_the_width_of_a_table_is_that_of_its_longest_words() -> None:
    # Two characters of `K`, then `inner_`, then nine characters of the cell; space beside each.
    table = Table("", ["K", "inner_steps", "N = 1"], [["20", "5", "1.5 ± 0.3"]])
    assert table.width == pytest.approx(2 + 6 + 9 + 3 * 1.6)
    assert Table("", ["K", "N = 1"], []).width == pytest.approx(1 + 5 + 2 * 1.6)
    wrapped = Table("", ["verdict"], [["undecided: too few trials for the number of settings"]])
    assert wrapped.width == pytest.approx(LONG_CELL + 1.6)


def test_long_cells_wrap_and_a_wide_table_says_that_it_is_scrolled(tmp_path: Path) -> None:
    table = Table("wide", ["name", "value"], [["a", "x" * 10], ["b", "y " * LONG_CELL]])
    html = elements(Page("", "", [Section("One", "", [table])], ""), tmp_path)
    assert f"--columns: {table.width}" in html.values("style")
    assert html.values("class", "td") == ["long"]
    assert "More columns to the right: scroll →" in html.text


def test_figures_in_words_have_data_but_no_image(tmp_path: Path) -> None:
    found = elements(made_up(), tmp_path)
    assert len(found.values("src", "img")) == 1
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["lines.png"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["flat.csv", "lines.csv"]


def test_text_of_trials_is_escaped(tmp_path: Path) -> None:
    nasty = "<script>alert('1')</script> & \"x\""
    found = elements(made_up(nasty), tmp_path)
    assert "script" not in {tag for tag, _ in found.found}
    assert found.text.count(nasty) == 13


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
