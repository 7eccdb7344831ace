import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

from serve_app.errors import BundleError, ConfigError
from serve_app.model import Bundle
from serve_app.preprocess import TECH23, Scaler
from serve_app.supervised import (
    InvalidInput,
    MissingFile,
    MissingSetting,
    ProductionPreprocessor,
    preprocess_for_inference,
)
from tests.factories import PRODUCTION
from tests.unit.model.foreign.files import LOOKBACK, Trap, scaling, unscaled
from tests.unit.supervised.conftest import frame_of

NAMES = list(TECH23.features)


@pytest.fixture(scope="module")
def features() -> pd.DataFrame:
    return frame_of(unscaled(np.random.default_rng(2), LOOKBACK + 6))


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    joblib.dump(scaling("global").content, tmp_path / "scalers.joblib")
    return {
        "scaler_path": str(tmp_path / "scalers.joblib"),
        "feature_list": NAMES,
        "lookback_window": LOOKBACK,
        "trust_pickle": True,
    }


def preprocessor(config: dict[str, Any], folder: Path) -> ProductionPreprocessor:
    path = folder / "preprocess.json"
    path.write_text(json.dumps(config))
    return ProductionPreprocessor(str(path))


def expected(features: pd.DataFrame) -> Any:
    return scaling("global").transform(features.to_numpy()[-LOOKBACK:])[None]


def test_a_window_is_scaled_as_the_scaler_does(features: pd.DataFrame, config: dict[str, Any], tmp_path: Path) -> None:
    made = preprocessor(config, tmp_path)
    assert made.validate_input(features) is True
    window = made.preprocess(features)
    assert window.shape == (1, LOOKBACK, 23)
    assert window.dtype == np.float32
    np.testing.assert_allclose(window, expected(features), rtol=1e-5, atol=1e-6)
    [fitted] = scaling("bare").columns
    for scaler in (fitted, {"global": fitted}, Scaler(fitted.mean_, fitted.scale_)):
        np.testing.assert_array_equal(preprocess_for_inference(features, NAMES, scaler), window)
    assert preprocess_for_inference(features, NAMES, fitted, 7).shape == (1, 7, 23)


def test_the_configuration_of_a_bundle_is_one_too(bundle: Bundle, features: pd.DataFrame) -> None:
    made = ProductionPreprocessor(str(PRODUCTION / "config.json"))
    scaled = (features.to_numpy()[-LOOKBACK:] - bundle.scaler.mean) / bundle.scaler.scale
    np.testing.assert_allclose(made.preprocess(features)[0], scaled, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: f.drop(columns=["OBV", "vwap"]), "Missing features: vwap, OBV"),
        (lambda f: f.tail(LOOKBACK - 1), "23 rows of features given, 24 needed"),
        (lambda f: f.assign(OBV=np.nan, vwap=np.nan, close=np.nan), "is missing, at most 10%"),
        (lambda f: f.assign(OBV=np.inf), "OBV is infinite"),
        (lambda f: f.assign(OBV="x"), "no number"),
        (lambda f: pd.concat([f, f[["OBV"]]], axis=1), "the frame has OBV more than once"),
        (lambda f: f.assign(timestamp=range(len(f)))[::-1], "is not later than the one before it"),
        (lambda f: f.to_numpy(), "a ndarray was given; a pandas DataFrame is needed"),
    ],
)
def test_a_frame_that_cannot_be_used_is_a_value_error_with_the_reason(
    features: pd.DataFrame, config: dict[str, Any], tmp_path: Path, spoil: Any, reason: str
) -> None:
    made, frame = preprocessor(config, tmp_path), spoil(features)
    for use in (made.validate_input, made.preprocess):
        with pytest.raises(ValueError, match=reason) as refused:
            use(frame)
        assert isinstance(refused.value, InvalidInput)


def test_gaps_count_in_the_window_only_and_are_filled_forward(
    features: pd.DataFrame, config: dict[str, Any], tmp_path: Path
) -> None:
    made = preprocessor(config, tmp_path)
    gap, filled = features.copy(), features.copy()
    gap.loc[gap.index[:6]] = np.nan  # before the window: nobody reads it
    gap.loc[gap.index[-2], NAMES[3]] = np.nan
    filled.loc[filled.index[-2], NAMES[3]] = features[NAMES[3]].iloc[-3]
    np.testing.assert_array_equal(made.preprocess(gap), made.preprocess(filled))


@pytest.mark.parametrize("rows", [0, -5, 24.0, True, "24"])
def test_a_window_has_a_whole_number_of_rows(features: pd.DataFrame, rows: Any) -> None:
    with pytest.raises(ValueError, match=r"lookback_window is .*; it must be a whole number of rows") as refused:
        preprocess_for_inference(features, NAMES, scaling("bare").content, rows)
    assert isinstance(refused.value, MissingSetting)


@pytest.mark.parametrize("n", [1, 22])
def test_a_scaler_of_other_features_is_refused(features: pd.DataFrame, n: int) -> None:
    with pytest.raises(BundleError, match=f"fitted on {n} features, the model takes 23"):
        preprocess_for_inference(features, NAMES, Scaler(np.zeros(n), np.ones(n)))


def test_a_scaler_that_remembers_names_must_have_them_in_the_same_order(
    features: pd.DataFrame, config: dict[str, Any], tmp_path: Path
) -> None:
    named, turned = StandardScaler().fit(features[NAMES]), StandardScaler().fit(features[NAMES[::-1]])
    bare = StandardScaler().fit(features[NAMES].to_numpy())
    expected = preprocess_for_inference(features, NAMES, bare)
    np.testing.assert_array_equal(preprocess_for_inference(features, NAMES, named), expected)
    with pytest.raises(BundleError, match="on the same features in another order"):
        preprocess_for_inference(features, NAMES, turned)
    joblib.dump(turned, config["scaler_path"])
    with pytest.raises(BundleError, match="on the same features in another order"):
        preprocessor(config, tmp_path)


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"nan_handling": "drop"}, ConfigError, "only 'ffill' is served"),
        ({"nan_handling": "bfill"}, ConfigError, "only 'ffill' is served"),
        ({"feature_list": []}, BundleError, "nothing says which features"),
        ({"feature_list": NAMES[:-1]}, BundleError, "fitted on 23 features"),
        ({"lookback_window": None}, MissingSetting, "lookback_window is None"),
        ({"lookback_window": "24"}, MissingSetting, "lookback_window is '24'"),
        ({"scaler_path": "/nowhere"}, MissingFile, "Scaler file not found"),
        ({"scaler_path": None}, MissingFile, "Scaler file not found"),
        ({"trust_pickle": False}, BundleError, r'config\["trust_pickle"\] = True'),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(
    config: dict[str, Any], tmp_path: Path, changes: dict[str, Any], error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        preprocessor({**config, **changes}, tmp_path)


def test_what_is_no_configuration_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Configuration file not found"):
        ProductionPreprocessor(str(tmp_path / "none.json"))
    for content, reason in (("{", "is not JSON"), ("[]", "is no JSON object")):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ConfigError, match=reason):
            ProductionPreprocessor(str(tmp_path / "bad.json"))


def test_a_trap_in_the_scaler_never_goes_off_untrusted(config: dict[str, Any], tmp_path: Path) -> None:
    joblib.dump(Trap(tmp_path / "it-ran"), tmp_path / "scalers.joblib")
    with pytest.raises(BundleError, match="is a pickle"):
        preprocessor({**config, "trust_pickle": False}, tmp_path)
    assert not (tmp_path / "it-ran").exists()
