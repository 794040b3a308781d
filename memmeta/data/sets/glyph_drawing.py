"""Drawing of the images of data set glyphs, with the fonts included in Matplotlib."""

import functools
import unicodedata
from itertools import chain
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageFont

from memmeta.data.sources import SPLITS, Classes, Images

SIZE = 28
IMAGES_PER_CLASS = 25

# Inclusive ranges of code points.
SCRIPTS = {
    "train": [
        (0x0021, 0x024F),  # Latin and its punctuation
        (0x0250, 0x02AF),  # phonetic alphabet
        (0x0400, 0x052F),  # Cyrillic
        (0x1400, 0x14FF),  # Canadian syllabics
        (0x20A0, 0x20CF),  # currencies
        (0x2100, 0x214F),  # letterlike symbols
        (0x2190, 0x21FF),  # arrows
        (0x2200, 0x22FF),  # mathematical operators
        (0x2300, 0x23FF),  # technical signs
        (0x25A0, 0x25FF),  # geometric shapes
        (0x2600, 0x26FF),  # symbols
        (0x2701, 0x27BF),  # dingbats
        (0x27C0, 0x27FF),  # more arrows and mathematics
    ],
    "val": [
        (0x0370, 0x03FF),  # Greek and Coptic
        (0x0600, 0x06FF),  # Arabic
        (0x07C0, 0x07FF),  # N'Ko
        (0x1680, 0x169F),  # Ogham
        (0x2D30, 0x2D7F),  # Tifinagh
        (0xA4D0, 0xA4FF),  # Lisu
        (0x10300, 0x1032F),  # Old Italic
    ],
    "test": [
        (0x0530, 0x058F),  # Armenian
        (0x0590, 0x05FF),  # Hebrew
        (0x0E80, 0x0EFF),  # Lao
        (0x10A0, 0x10FF),  # Georgian
        (0x2D00, 0x2D2F),  # Georgian, old small letters
    ],
}

# The first font that contains a character draws the shape used to detect similar classes.
FONTS = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono",
    "STIXGeneral",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif-Italic",
    "DejaVuSerif-Bold",
    "DejaVuSansMono-Oblique",
    "STIXGeneralItalic",
    "STIXGeneralBol",
)

# A glyph is first drawn in black and white in MASTER x MASTER pixels. Its longer side has INK.
MASTER = 48
INK = 36
FONT_SIZE = 40
# Shapes with a larger cosine similarity are treated as one class.
ALIKE = 0.93
# Variation of the drawings of a class: standard deviations.
ROTATION = 0.22  # radians
SHEAR = 0.12
LOG_SCALE = 0.12
SHIFT = 0.05  # of the width of the image
WARP = 0.045  # of the width of the image, at the corners of a grid of 3 x 3 cells
NOISE = 25.0  # grey levels; the largest standard deviation


def draw_split(split: str) -> Classes:
    """Draw the classes of a split. The same Pillow and Matplotlib give the same images."""
    for code in sorted(_alphabet()[split]):
        yield f"U+{code:05X}", draw(code)


def draw(code: int) -> Images:
    """Draw all images of a character.

    Args:
        code: its Unicode code point. At least one font must contain it.

    Returns:
        uint8 [IMAGES_PER_CLASS, SIZE, SIZE, 1], light on dark.
    """
    rng = np.random.default_rng(code)
    masters = [_master(font, code) for font in _fonts() if code in font.codes]
    chosen = rng.integers(len(masters), size=IMAGES_PER_CLASS)
    ink = np.stack([_warp(masters[i], rng) for i in chosen]) / 255.0
    per_image = (IMAGES_PER_CLASS, 1, 1)
    # A soft threshold of the blurred outline: low thresholds thicken strokes, high ones thin them.
    threshold, steepness = rng.uniform(0.25, 0.6, per_image), rng.uniform(6, 20, per_image)
    ink = 1 / (1 + np.exp((threshold - ink) * steepness))
    ground = rng.uniform(0, 80, per_image)
    grey = ground + (rng.uniform(110, 255, per_image) - ground) * ink
    grey += rng.normal(0, 1, (IMAGES_PER_CLASS, SIZE, SIZE)) * rng.uniform(0, NOISE, per_image)
    return grey.clip(0, 255).astype(np.uint8)[..., None]


class _Font:
    """A font file included in Matplotlib."""

    def __init__(self, name: str) -> None:
        path = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf")
        self.codes = frozenset(FT2Font(path).get_charmap())
        self.face = ImageFont.truetype(path, FONT_SIZE, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def _fonts() -> list[_Font]:
    return [_Font(name) for name in FONTS]


@functools.cache
def _alphabet() -> dict[str, list[int]]:
    """The code points of each split, without those that look like an earlier one."""
    candidates = [
        (split, code)
        for split in SPLITS
        for code in chain.from_iterable(range(a, b + 1) for a, b in SCRIPTS[split])
        if _is_character(code)
    ]
    shapes = np.zeros((len(candidates), (MASTER // 4) ** 2), dtype=np.float32)
    alphabet: dict[str, list[int]] = {split: [] for split in SPLITS}
    kept = 0
    for split, code in candidates:
        font = next((font for font in _fonts() if code in font.codes), None)
        shape = None if font is None else _shape(_master(font, code))
        if shape is not None and (shapes[:kept] @ shape).max(initial=0) < ALIKE:
            shapes[kept] = shape
            kept += 1
            alphabet[split].append(code)
    return alphabet


def _is_character(code: int) -> bool:
    """Whether a code point is a letter, digit, punctuation mark or symbol without an accent."""
    character = chr(code)
    return unicodedata.category(character)[0] in "LNPS" and not unicodedata.decomposition(character)


def _shape(master: Image.Image) -> NDArray[np.float32] | None:
    """A unit vector that describes the shape of a drawing; None if it is blank."""
    small = np.asarray(master.filter(ImageFilter.BoxBlur(2)).reduce(4), dtype=np.float32).ravel()
    norm = float(np.linalg.norm(small))
    return small / norm if norm > 0 else None


def _master(font: _Font, code: int) -> Image.Image:
    """The glyph without variation, centred and scaled to a common size."""
    mask = font.face.getmask(chr(code), mode="L")
    width, height = mask.size
    image = Image.new("L", (MASTER, MASTER))
    if width and height:
        glyph = Image.frombytes("L", mask.size, bytes(mask))
        glyph = glyph.crop(glyph.getbbox())
        factor = INK / max(glyph.size)
        size = (max(1, round(glyph.width * factor)), max(1, round(glyph.height * factor)))
        corner = ((MASTER - size[0]) // 2, (MASTER - size[1]) // 2)
        image.paste(glyph.resize(size, Image.Resampling.BILINEAR), corner)
    return image


def _warp(master: Image.Image, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Apply a small random affine map, and a local deformation by a grid of displaced points."""
    cells = 3
    turn, shear = rng.normal(0, ROTATION), rng.normal(0, SHEAR)
    stretch = np.exp(rng.normal(0, LOG_SCALE, 2))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = rotation @ np.array([[1, shear], [0, 1]]) * stretch
    line = np.arange(cells + 1) / cells - 0.5
    points = np.stack(np.meshgrid(line, line), axis=-1) @ matrix.T
    points += rng.normal(0, SHIFT, 2) + rng.normal(0, WARP, points.shape)
    points = (points + 0.5) * MASTER
    edges = [round(i * SIZE / cells) for i in range(cells + 1)]
    mesh = []
    for row, column in np.ndindex(cells, cells):
        box = (edges[column], edges[row], edges[column + 1], edges[row + 1])
        corners = [(row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1)]
        mesh.append((box, tuple(chain.from_iterable(points[corner] for corner in corners))))
    return np.asarray(
        master.transform((SIZE, SIZE), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
    )
