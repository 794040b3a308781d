"""Blocks in which libraries are quiet. Afterwards the environment and log levels are as before."""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

_MLFLOW_ENVIRONMENT = {
    # By default, MLflow waits many minutes for a server that does not answer.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}

_MLFLOW_LEVELS = {
    # Callers report failures in one line.
    "mlflow": logging.CRITICAL,
    "alembic": logging.CRITICAL,
}


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables in the block, except those that the user has set."""
    added = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def log_levels(levels: Mapping[str, int]) -> Iterator[None]:
    """Set the levels of loggers, by name, in the block."""
    loggers = {logging.getLogger(name): level for name, level in levels.items()}
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)


_lock = threading.Lock()
_users = 0
_settings = ExitStack()
"""What to restore when the last thread leaves `quiet_mlflow`."""


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Give MLflow short timeouts in the block, and none of its messages after `silence_mlflow`.

    Blocks of several threads may overlap; the end of the last one restores the process.
    """
    global _users
    with _lock:
        if not _users:
            _settings.enter_context(environment(_MLFLOW_ENVIRONMENT))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                _settings.close()


def silence_mlflow() -> None:
    """Silence MLflow to the end of `quiet_mlflow`. Importing MLflow first sets its own levels."""
    with _lock:
        if _users:
            _settings.enter_context(log_levels(_MLFLOW_LEVELS))
