"""Secrets in addresses are never shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from memmeta.errors import InputError
from sweeps.engine.stores.masking import masked, reason, without_credentials
from sweeps.engine.stores.store import store_errors_in_one_line

SECRET = "hunter2"

# Passwords with the secret between other parts and special characters.
PASSWORDS = st.lists(
    st.sampled_from([SECRET, *"/@:?&=# +%;{}'\"-", "%2F", "%40", "k=", "\\"]),
    min_size=1,
    max_size=8,
).map(lambda parts: "".join([*parts, SECRET]))

SCHEMES = st.sampled_from(["postgresql", "mysql+pymysql", "https", "mssql+pyodbc", "foo"])


def shown(address):
    """All texts in which an address may be shown."""
    yield masked(address)
    yield reason(ValueError(f"cannot connect to {address!r}, sorry"), address)
    with pytest.raises(InputError) as raised, store_errors_in_one_line(address):
        raise ValueError(f"no {address}")
    yield raised.value.message


@given(SCHEMES, PASSWORDS)
def test_passwords_are_masked_in_every_notation(scheme, password):
    parts = {"username": "ada", "password": password, "host": "host", "database": "db"}
    for address in (
        URL.create(scheme, **parts).render_as_string(hide_password=False),
        f"{scheme}://ada:{password}@host/db",
        f"{scheme}://ada:{password}@host:5432",
        f"{scheme}://ada:{password}@host:port",
    ):
        for text in shown(address):
            assert SECRET not in text


@given(SCHEMES, st.sampled_from(["password", "pwd", "api_key", "odbc_connect", "x"]), PASSWORDS)
def test_unknown_options_are_masked(scheme, name, value):
    query = {name: value, "sslmode": "require"}
    address = URL.create(scheme, host="host", database="db", query=query).render_as_string()
    assert "sslmode=require" in masked(address)
    raw = f"{scheme}://host/db?sslmode=require&{name}={value}"
    for text in (*shown(address), *shown(raw)):
        assert SECRET not in text


@given(PASSWORDS)
def test_parts_of_an_address_in_an_error_are_masked(password):
    address = URL.create("postgresql", "ada", password, "host").render_as_string(False)
    said = reason(ValueError(f'could not translate host name "{password}@host"'), address)
    assert SECRET not in said
    assert said.startswith("could not translate host name")


@given(PASSWORDS.filter(lambda password: "/" not in password))
def test_addresses_within_words_are_masked(password):
    text = without_credentials(f"at https://ada:{password}@host:5000: no")
    assert SECRET not in text
    assert text.startswith("at https://")


@pytest.mark.parametrize(
    "address",
    [
        "sqlite:////home/a@b/mlflow.db",
        "sqlite:////home/a b/mlflow.db?timeout=5",
        "sqlite:///mlflow.db",
        "sqlite+pysqlite:////x/a%3Fb/mlflow.db",
        "http://127.0.0.1:5000",
        "https://host/team@x",
        "postgresql://host/db?sslmode=require&connect_timeout=5",
        "databricks",
        "localhost:5000",
        "runs/mlflow.db",
    ],
)
def test_addresses_without_secrets_are_unchanged(address):
    assert masked(address) == address
    assert reason(OSError(f"no: {address}"), address) == f"no: {address}"


@given(st.sampled_from(["", "postgresql://", "http://", "sqlite:///"]), st.text())
def test_any_text_can_be_masked(scheme, text):
    text = scheme + text
    masked(text)
    without_credentials(text)
    reason(ValueError(text), text)
