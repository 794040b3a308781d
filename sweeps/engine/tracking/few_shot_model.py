"""A few-shot learner as an MLflow model.

MLflow copies this file into the model, and runs it when the model is loaded.
"""

from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

import memmeta as mm

_IMAGES = ("support_images", "support_labels", "query_images")
_POINTS = ("support_points", "support_values", "query_points")


class FewShotModel(PythonModel):
    """Adapts the learner to a support set, and predicts the query set."""

    # MLflow warns about inputs without annotation, and about annotations other than lists.
    _skip_type_hint_validation = True

    def load_context(self, context: Any) -> None:
        """Read the checkpoint. Its config may name code if `model_config` has `trust_code`."""
        trusted = (context.model_config or {}).get("trust_code", False)
        self.run = mm.load(context.artifacts["checkpoint"], trust_code=trusted)

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """Adapt and predict.

        Args:
            context: not used.
            model_input: a dict with `support_images`, `support_labels` and `query_images`, as
                `memmeta.Run.adapt` and `memmeta.Classifier.predict` take them; in regression with
                `support_points`, `support_values` and `query_points`.
            params: not used.

        Returns:
            The labels of the query images, or the values at the query points.

        Raises:
            InputError: the input is not accepted.
        """
        del context, params
        has_classes = self.run.config.data.source.has_classes
        wanted = _IMAGES if has_classes else _POINTS
        if not isinstance(model_input, dict) or model_input.keys() != {*wanted}:
            given = [*model_input] if isinstance(model_input, dict) else type(model_input).__name__
            raise mm.InputError(f"a dict with {', '.join(wanted)} is accepted, got {given}")
        support, targets, query = (model_input[name] for name in wanted)
        adapt = self.run.adapt if has_classes else self.run.adapt_regression
        return adapt(support, targets).predict(query)


set_model(FewShotModel())
