"""Output for terminals and files whose encoding lacks some of the characters that are printed."""

import codecs
import io
import sys
import unicodedata

_HANDLER = "memmeta.plain"

_PLAIN = {
    "±": "+-", "×": "x", "·": ".", "²": "^2", "⁻": "-", "¹": "1", "∇": "grad ", "≥": ">=",
    "≤": "<=", "→": "->", "–": "-", "—": "-", "‖": "|", "…": "...", "“": '"', "”": '"',
    "‘": "'", "’": "'", "•": "*", "√": "sqrt ", "÷": "/", "κ": "kappa", "−": "-",
}  # fmt: skip
"""Characters of this program's texts that are more than a letter with an accent."""


def degrade_output() -> None:
    """Have what the encoding of stdout and stderr lacks printed as something close to it.

    Otherwise one such character ends the program with a UnicodeEncodeError. That holds for file
    names too, of which some can be printed in no encoding.
    """
    codecs.register_error(_HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        # Tests and notebooks put streams of other kinds there.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    texts = map(_plain_character, error.object[error.start : error.end])
    return "".join(texts), error.end


def _plain_character(character: str) -> str:
    """ASCII, in as many characters as it takes: `±` is `+-`, `é` is `e`, a line of a box is `-`."""
    if character in _PLAIN:
        return _PLAIN[character]
    name = unicodedata.name(character, "")
    if name.startswith(("BOX DRAWINGS", "BLOCK", "BRAILLE")):
        return "|" if "VERTICAL" in name else "-"
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letters or "?"
