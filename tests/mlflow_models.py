"""Loading MLflow models."""

import mlflow.pyfunc


def loaded(uri: str, address: str) -> mlflow.pyfunc.PyFuncModel:
    """The model at `runs:/...` in the store at `uri`, which MLflow keeps as a global value."""
    mlflow.set_tracking_uri(uri)
    try:
        return mlflow.pyfunc.load_model(address)
    finally:
        mlflow.set_tracking_uri(None)
