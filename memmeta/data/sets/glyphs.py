"""Glyphs: characters drawn from Matplotlib's fonts, a data set that needs no download.

A class is a character. An image is one drawing of it in 28x28 grey: in one of the fonts that have
the character, warped, thicker or thinner, more or less faint, on a noisy ground. The three splits
have different scripts. Characters that look alike, such as the Latin, Greek and Cyrillic A, are one
class, so test classes differ from training classes in shape and not only in name.
"""

from pathlib import Path

from memmeta.data.sources import Classes, ImageSource


def _read_split(data_root: Path, split: str) -> Classes:
    """See `draw_split`."""
    del data_root
    # Matplotlib takes half a second to import.
    from memmeta.data.sets.glyph_drawing import draw_split

    return draw_split(split)


GLYPHS = ImageSource("glyphs", (1, 28, 28), _read_split, drawn=True)
