"""Where the files of runs are in a database without a server: MLflow keeps absolute paths."""

from pathlib import Path

from sweeps.engine.store import database_file

_TAG = "memmeta.artifacts"
"""Of an experiment: the folder of its files, relative to that of the database."""

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
"""Those of versions that kept no relative path. In a storage it was always this one."""

_MOVE = (
    "UPDATE experiments SET artifact_location = :new WHERE experiment_id = :experiment",
    "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1) "
    "WHERE experiment_id = :experiment AND substr(artifact_uri, 1, length(:old)) = :old",
)


def location(uri: str, folder: Path) -> tuple[str | None, dict[str, str]]:
    """Where the files of a new experiment go, and the tag of the experiment that says so.

    Args:
        uri: of the store. A server keeps files where it was told to. A bare database would put
            them into whatever folder the driver was started in.
        folder: for the files, where the store is a bare database.
    """
    database = database_file(uri)
    if database is None:
        return None, {}
    home = database.resolve().parent
    tags = {_TAG: str(folder.relative_to(home))} if folder.is_relative_to(home) else {}
    return folder.as_uri(), tags


def follow(uri: str) -> None:
    """Have the files of a database's runs go where the database is now, if it was moved or copied.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be read, or written where that is needed.
    """
    database = database_file(uri)
    if database is None:
        return
    # Takes a moment to import.
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
