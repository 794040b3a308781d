"""Output to terminals and files whose encoding lacks some characters."""

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
"""Replacements for characters of this program's texts. Accents are removed without a table."""


def degrade_output() -> None:
    """Replace characters that the encoding of stdout or stderr lacks by similar ones.

    Without this, one such character ends the program with a UnicodeEncodeError. Some file names
    cannot be printed in any encoding.
    """
    codecs.register_error(_HANDLER, _plain)
    for stream in (sys.stdout, sys.stderr):
        # Tests and notebooks replace these streams.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    texts = map(_plain_character, error.object[error.start : error.end])
    return "".join(texts), error.end


def _plain_character(character: str) -> str:
    """ASCII text for a character: `+-` for `±`, `e` for `é`, `-` for a line of a box."""
    if character in _PLAIN:
        return _PLAIN[character]
    name = unicodedata.name(character, "")
    if name.startswith(("BOX DRAWINGS", "BLOCK", "BRAILLE")):
        return "|" if "VERTICAL" in name else "-"
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letters or "?"
