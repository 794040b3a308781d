"""The one exception for what a user can put right."""

import click


class InputError(click.ClickException):
    """Bad input: a file, a config value, a folder.

    The message says what is wrong, where, and what is accepted. Command lines print it as
    one line and exit with code 2.
    """

    exit_code = 2
