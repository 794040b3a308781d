"""Removes passwords and other secrets from addresses of stores, so that they can be shown."""

import re
from urllib.parse import quote_plus, unquote, unquote_plus

_HARMLESS = {
    *("application_name", "charset", "check_same_thread", "connect_timeout", "driver", "mode"),
    *("sslmode", "timeout", "uri", "user", "username"),
}
"""Query options of an address whose values are not secret."""

_ADDRESS = re.compile(r"\w[\w+.-]*://(?:[^/\s](?:(?!\w://).)*@)?\S*")
"""An address in a text. A password may contain spaces, so it extends to the last @ of the line."""

_LONGEST = 500
"""Maximum length of a reason."""


def masked(address: str) -> str:
    """An address without user and password, and with `***` for options that may be secret.

    The name of such an option is hidden too, because an unescaped `&` splits a password into
    options.

    The address is parsed by SQLAlchemy. If that fails, or if it is unclear where the password ends,
    only the scheme is kept.
    """
    # Slow to import.
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
            # SQLAlchemy ends the password at the first unescaped @, so cut after the last one.
            rest = rest.rpartition("@")[2]
            url = make_url(f"{scheme}://{rest}")
    except (ArgumentError, ValueError):
        return hidden
    options = [
        f"{name}={quote_plus(value)}" if name.lower() in _HARMLESS else "***"
        for name, values in url.normalized_query.items()
        for value in values
    ]
    location = f"{scheme}://{rest.partition('?')[0]}"
    return f"{location}?{'&'.join(options)}" if options else location


def without_credentials(text: str) -> str:
    """`text` with every address in it masked."""
    return _ADDRESS.sub(lambda match: masked(match[0]), text)


def reason(error: BaseException, address: str = "") -> str:
    """The first line of an exception's message, without secrets.

    Args:
        error: the exception.
        address: the address of the store that failed. Database drivers repeat parts of it, so every
            word that `masked` removes from it is removed from the line too.
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
    """The words of an address that `masked` removes, longest first."""
    return sorted(_words(address) - _words(masked(address)), key=len, reverse=True)


def _words(address: str) -> set[str]:
    """The words of an address, with and without decoded escapes."""
    rest = address.partition("://")[2]
    forms = (rest, unquote(rest), unquote_plus(rest))
    return {word for form in forms for word in re.findall(r"\w+", form)}
