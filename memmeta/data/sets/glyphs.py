"""Glyphs: characters drawn with Matplotlib's fonts, a data set that needs no download.

A class is a character. An image is a 28x28 grey drawing of it in one of the fonts that contain the
character, with random deformation, stroke width, contrast and noise. The three splits have
different scripts. Characters that look alike, such as the Latin, Greek and Cyrillic A, are one
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
