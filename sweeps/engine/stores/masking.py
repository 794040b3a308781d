"""Addresses of stores without the secrets in them, so that they can be shown."""

import re
from urllib.parse import quote_plus, unquote, unquote_plus

_HARMLESS = {
    *("application_name", "charset", "check_same_thread", "connect_timeout", "driver", "mode"),
    *("sslmode", "timeout", "uri", "user", "username"),
}
"""Options of an address whose values may be shown."""

_ADDRESS = re.compile(r"\w[\w+.-]*://(?:[^/\s](?:(?!\w://).)*@)?\S*")
"""An address within words. A password can have spaces, so it reaches to the last @ of its line."""

_LONGEST = 500
"""Characters of a reason."""


def masked(address: str) -> str:
    """An address without user and password, and with `***` for options that may be secret.

    The name of such an option is hidden too: it is part of a password with an unescaped `&`.

    SQLAlchemy's parser finds the parts. Only the scheme is left if it cannot parse the address, or
    if it is unclear where the password ends.
    """
    # Takes a moment to import.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    hidden = f"{scheme}://***" if re.search("[@?]", rest) else address
    try:
        url = make_url(address)
        if url.username is not None:
            if any("@" in value for values in url.normalized_query.values() for value in values):
                return hidden
            # A password with an unescaped @ reaches further than the parser thinks.
            rest = rest.rpartition("@")[2]
            url = make_url(f"{scheme}://{rest}")
    except (ArgumentError, ValueError):
        return hidden
    options = [
        f"{name}={quote_plus(value)}" if name.lower() in _HARMLESS else "***"
        for name, values in url.normalized_query.items()
        for value in values
    ]
    place = f"{scheme}://{rest.partition('?')[0]}"
    return f"{place}?{'&'.join(options)}" if options else place


def without_credentials(text: str) -> str:
    """`text` with every address in it masked."""
    return _ADDRESS.sub(lambda found: masked(found[0]), text)


def reason(error: BaseException, address: str = "") -> str:
    """The first line of an exception's message, without secrets.

    Args:
        error: the exception.
        address: the address of the store that failed. Drivers repeat parts of it, so each word that
            `masked` cuts out of it is cut out of the line too.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0][: 10 * _LONGEST]
    if address:
        for form in (address, repr(address)[1:-1]):
            text = text.replace(form, masked(address))
    for secret in _secrets(address):
        text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return without_credentials(text)[:_LONGEST]


def _secrets(address: str) -> list[str]:
    """The words of an address that its masked form lacks, the longest first."""
    return sorted(_words(address) - _words(masked(address)), key=len, reverse=True)


def _words(address: str) -> set[str]:
    """The words of an address, as it is and with its escapes decoded."""
    rest = address.partition("://")[2]
    forms = (rest, unquote(rest), unquote_plus(rest))
    return {word for form in forms for word in re.findall(r"\w+", form)}
