"""The model of a published bundle for `mlflow.pyfunc.load_model`: MLflow logs this file and runs it.

`predict({"features": (B, L, F) unscaled, "asset_ids": (B,)})` → probabilities (B,), by the code that serves.
"""

from typing import Any

import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from serve_app.config import ModelConfig
from serve_app.errors import UnknownSymbol
from serve_app.model import load_bundle
from serve_app.model.stage import Model
from serve_app.pipeline import Pipeline, preprocess_of, stages_of
from serve_app.types import FeatureRows, SignalRequest


class BundleModel(PythonModel):
    """A bundle, verified when it is loaded."""

    def load_context(self, context: Any) -> None:
        """Load the bundle that was logged with the model."""
        bundle = load_bundle(context.artifacts["bundle"])
        self._model = Model(bundle, ModelConfig())
        self._pipeline = Pipeline(bundle, stages_of(bundle, self._model.run))
        self._symbols = {number: symbol for symbol, number in bundle.symbol_to_id.items()}

    # Without annotations: MLflow takes those of `model_input` for a schema, and the signature is one already.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """Return probabilities (B,). Raises UnknownSymbol, or what else serving refuses a window for."""
        bundle = self._pipeline.bundle
        ids = np.asarray(model_input["asset_ids"]).tolist()
        rows = [
            self._pipeline.row(SignalRequest(self._symbol(number), FeatureRows(bundle.config.feature_list, window)))
            for number, window in zip(ids, np.asarray(model_input["features"], dtype=np.float64), strict=True)
        ]
        windows = preprocess_of(bundle).windows(self._pipeline.stack(rows))
        return self._model.predict(windows).probabilities

    def _symbol(self, number: int) -> str:
        if number not in self._symbols:
            raise UnknownSymbol(f"no symbol of the bundle has the asset id {number}", known=sorted(self._symbols))
        return self._symbols[number]


set_model(BundleModel())
