"""The artifact folder of an MLflow store that is a database without a server.

MLflow stores absolute paths. They are wrong after a storage folder was moved or copied.
"""

from pathlib import Path

from sweeps.engine.stores.store import database_file

_TAG = "memmeta.artifacts"
"""Tag of an experiment: its artifact folder, relative to the database's folder."""

_EXPERIMENTS = f"""
SELECT e.experiment_id, e.artifact_location, t.value
FROM experiments e JOIN experiment_tags t ON t.experiment_id = e.experiment_id
WHERE t.key = '{_TAG}'
"""

_EARLIER_EXPERIMENTS = f"""
SELECT e.experiment_id, e.artifact_location, 'artifacts'
FROM experiments e
WHERE e.artifact_location LIKE 'file:///%/artifacts'
AND NOT EXISTS (
    SELECT 1 FROM experiment_tags t WHERE t.experiment_id = e.experiment_id AND t.key = '{_TAG}'
)
AND EXISTS (
    SELECT 1 FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid
    WHERE r.experiment_id = e.experiment_id AND t.key = 'memmeta.kind'
)
"""
"""Experiments of older versions, which have no tag. Their artifact folder had this name."""

_MOVE = (
    "UPDATE experiments SET artifact_location = :new WHERE experiment_id = :experiment",
    "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1) "
    "WHERE experiment_id = :experiment AND substr(artifact_uri, 1, length(:old)) = :old",
    "UPDATE logged_models "
    "SET artifact_location = :new || substr(artifact_location, length(:old) + 1) "
    "WHERE experiment_id = :experiment AND substr(artifact_location, 1, length(:old)) = :old",
)


def location(uri: str, folder: Path) -> tuple[str | None, dict[str, str]]:
    """The artifact location of a new experiment, and the tags that record it.

    Args:
        uri: the store. A server chooses the location itself. For a database, MLflow would choose
            the driver's working directory.
        folder: artifact folder if the store is a database.
    """
    database = database_file(uri)
    if database is None:
        return None, {}
    home = database.resolve().parent
    tags = {_TAG: str(folder.relative_to(home))} if folder.is_relative_to(home) else {}
    return folder.as_uri(), tags


def follow(uri: str) -> None:
    """Update the paths in a database that was moved or copied together with its artifacts.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be read or corrected.
    """
    database = database_file(uri)
    if database is None:
        return
    # Slow to import.
    from sqlalchemy import create_engine, text

    query = _EXPERIMENTS
    if database.name == "mlflow.db":
        query += f"UNION ALL {_EARLIER_EXPERIMENTS}"
    home = database.resolve().parent
    engine = create_engine(uri)
    with engine.begin() as connection:
        for experiment, old, relative in connection.execute(text(query)).all():
            new = (home / relative).as_uri()
            if new != old:
                values = {"experiment": experiment, "old": old, "new": new}
                for statement in _MOVE:
                    connection.execute(text(statement), values)
    engine.dispose()
