"""What a block changes in the process, and that it is restored."""

import logging
import os
import threading

import pytest

from memmeta.errors import InputError
from sweeps.engine.run import quietly
from sweeps.engine.stores.quiet import quiet_mlflow
from sweeps.engine.stores.store import connect, store_errors_in_one_line

LOGGERS = ("mlflow", "alembic", "mlflow.store.db.utils", "optuna", "ray", "ray.tune")
RETRIES, TIMEOUT = "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"


def process_state():
    # Importing MLflow and starting a phase of a test set these.
    others = ("_MLFLOW", "PYTEST_CURRENT_TEST")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    return variables, {name: logging.getLogger(name).level for name in LOGGERS}


@pytest.fixture
def before(monkeypatch):
    monkeypatch.delenv(RETRIES, raising=False)
    monkeypatch.setenv(TIMEOUT, "77")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.DEBUG)
    return process_state()


@pytest.mark.parametrize("error", [None, InputError("refused"), ValueError("?"), KeyboardInterrupt])
def test_opening_a_store_leaves_the_process_as_it_was(empty_store, before, error):
    uri = f"sqlite:///{empty_store}"
    try:
        with store_errors_in_one_line(uri):
            connect(uri).search_experiments()
            assert (os.environ[RETRIES], os.environ[TIMEOUT]) == ("1", "77")
            assert not logging.getLogger("mlflow").isEnabledFor(logging.ERROR)
            assert not logging.getLogger("alembic").isEnabledFor(logging.ERROR)
            if error:
                raise error
    except (InputError, KeyboardInterrupt):
        assert error is not None
    assert process_state() == before


def test_a_sweep_leaves_the_process_as_it_was(empty_store, before):
    with quietly():
        with store_errors_in_one_line(f"sqlite:///{empty_store}"):
            connect(f"sqlite:///{empty_store}")
        assert os.environ[RETRIES] == "1"
        assert not logging.getLogger("mlflow").isEnabledFor(logging.ERROR)
        assert not logging.getLogger("optuna").isEnabledFor(logging.INFO)
    assert process_state() == before


def test_blocks_of_several_threads_may_overlap(empty_store, before):
    entered, leave = threading.Event(), threading.Event()

    def stay():
        with quiet_mlflow():
            connect(f"sqlite:///{empty_store}")
            entered.set()
            leave.wait()

    thread = threading.Thread(target=stay)
    with quiet_mlflow():
        thread.start()
        entered.wait()
    assert os.environ[RETRIES] == "1"
    assert not logging.getLogger("mlflow").isEnabledFor(logging.ERROR)
    leave.set()
    thread.join()
    assert process_state() == before
