"""The interface of older code gives what it gave where that was right, and fails closed where it was not."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from serve_app.errors import (
    BundleError,
    ConfigError,
    InvalidPosition,
    MissingColumns,
    StageFailed,
    TooFewBars,
    TooManyMissing,
    UnknownColumns,
    UnknownSymbol,
    UnsortedTimestamps,
    WrongType,
)
from serve_app.model import Bundle, load_bundle
from serve_app.model.mlflow_registry import publish_bundle
from serve_app.model.mlflow_registry.store import connected, experiment_id
from serve_app.pipeline import Pipeline
from serve_app.preprocess import TECH23
from serve_app.supervised import MissingFile, MissingSetting, SupervisedNNStrategy
from serve_app.types import Bars, SignalRequest
from tests.factories import PRODUCTION, features_of, window
from tests.unit.model.foreign.files import CLASS_OF, LOOKBACK, network, original, scaling, unscaled, write
from tests.unit.supervised.conftest import Configure, bars_frame, frame_of

FORMS = ("module", "dict model", "bare", "model_state_dict", "model_state_dict _orig_mod.", "torchscript", "onnx")


@pytest.fixture(scope="module")
def features() -> pd.DataFrame:
    return frame_of(unscaled(np.random.default_rng(2), LOOKBACK + 6))


@pytest.fixture
def strategy(classes: Any, configure: Configure) -> SupervisedNNStrategy:
    return SupervisedNNStrategy(configure(network(classes, "lstm_attention"), "module", scaling("global")))


@pytest.fixture(scope="module")
def served() -> SupervisedNNStrategy:
    return SupervisedNNStrategy({"bundle": str(PRODUCTION)})


def rows(frame: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    return frame.assign(**columns)


# What it computes.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("architecture", CLASS_OF)
def test_every_form_gives_the_probability_of_the_original(
    classes: Any, configure: Configure, features: pd.DataFrame, architecture: str, form: str
) -> None:
    module, fitted = network(classes, architecture), scaling("global")
    config = configure(module, form, fitted)
    if architecture == "cnn_lstm" and form == "bare":
        with pytest.raises(ConfigError, match=r'whether it pools.*set config\["use_pooling"\] to True or False'):
            SupervisedNNStrategy(config)
        config["use_pooling"] = True
    strategy = SupervisedNNStrategy(config)
    window_tensor, asset_id = strategy.prepare_input_sequence(features, "MSFT")
    assert window_tensor is not None
    assert (window_tensor.shape, window_tensor.dtype) == ((1, LOOKBACK, 23), torch.float32)
    assert asset_id is not None
    assert (asset_id.shape, asset_id.dtype, asset_id.tolist()) == ((1,), torch.int64, [4])
    expected = original(module, fitted, "MSFT", features.to_numpy()[-LOOKBACK:])
    assert strategy.get_model_prediction(window_tensor, asset_id) == pytest.approx(expected, abs=1e-6)


def test_a_frame_of_bars_on_a_bundle_gives_what_serving_gives(
    served: SupervisedNNStrategy, pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    history = window(bars["IBM"])
    [expected] = asyncio.run(pipeline.run([pipeline.row(SignalRequest("IBM", history))]))
    by_index = bars_frame(history).set_index("timestamp")
    by_index.index = pd.DatetimeIndex(by_index.index)
    for frame in (bars_frame(history), by_index, frame_of(features_of(history).values)):
        windows, ids = served.prepare_input_sequence(frame, "IBM")
        assert windows is not None
        assert served.get_model_prediction(windows, ids) == expected.probability


def test_the_feature_list_decides_the_order_and_other_columns_are_not_looked_at(
    strategy: SupervisedNNStrategy, features: pd.DataFrame
) -> None:
    shuffled = rows(features[features.columns[::-1]], note="text")
    expected, _ = strategy.prepare_input_sequence(features, "IBM")
    got, _ = strategy.prepare_input_sequence(shuffled, "IBM")
    assert expected is not None
    assert got is not None
    assert torch.equal(got, expected)


def test_a_window_in_another_layout_is_computed_alike(strategy: SupervisedNNStrategy, features: pd.DataFrame) -> None:
    windows, ids = strategy.prepare_input_sequence(features, "IBM")
    assert windows is not None
    expected = strategy.get_model_prediction(windows, ids)
    fortran = torch.from_numpy(np.asfortranarray(windows.numpy()))
    others: list[Any] = [fortran, windows.double(), windows.clone().requires_grad_(), windows.numpy()]
    for other in others:
        assert strategy.get_model_prediction(other, ids) == expected


def test_thresholds_come_from_the_bundle_and_the_configuration_wins(bundle: Bundle) -> None:
    own = bundle.config.strategy.signal_threshold
    assert SupervisedNNStrategy({"bundle": str(PRODUCTION)}).generate_trade_action(own, "FLAT") == "BUY"
    higher = SupervisedNNStrategy({"bundle": str(PRODUCTION), "signal_threshold": 0.9})
    assert higher.generate_trade_action(own, "FLAT") == "HOLD"
    with pytest.raises(ConfigError, match="the bundle holds for 8 bars; leave out max_holding_period_hours"):
        SupervisedNNStrategy({"bundle": str(PRODUCTION), "max_holding_period_hours": 4})


def test_thresholds_are_those_that_the_configuration_has_now(served: SupervisedNNStrategy) -> None:
    config: dict[str, Any] = {"signal_threshold": 0.7}
    for strategy in (SupervisedNNStrategy(config), SupervisedNNStrategy({"bundle": str(PRODUCTION)})):
        strategy.config["signal_threshold"] = 0.9
        assert strategy.generate_trade_action(0.8, "FLAT") == "HOLD"
        strategy.config["signal_threshold"] = 7
        with pytest.raises(ConfigError, match="signal_threshold is 7"):
            strategy.generate_trade_action(0.8, "FLAT")
    assert served.generate_trade_action(0.8, "FLAT") == "BUY"


# Actions.


@pytest.mark.parametrize(
    ("probability", "status", "hours", "action"),
    [
        (0.7, "FLAT", 0, "BUY"),
        (0.699999, "FLAT", 99, "HOLD"),
        (0.1, "FLAT", 0, "HOLD"),
        (0.9, "LONG", 7.99, "HOLD"),
        (0.9, "LONG", 8, "SELL"),
        (0.4, "LONG", 0, "SELL"),
        (0.400001, "LONG", 0, "HOLD"),
        (0.9, "SHORT", 99, "HOLD"),
        (0.9, "", 99, "HOLD"),
        (0.9, None, 99, "HOLD"),
        (0.9, "flat", 0, "HOLD"),
    ],
)
def test_actions_are_those_of_the_rules(
    probability: float, status: Any, hours: float, action: str, caplog: pytest.LogCaptureFixture
) -> None:
    strategy = SupervisedNNStrategy({"exit_threshold": 0.4})
    assert strategy.generate_trade_action(probability, status, hours) == action
    assert ("is neither FLAT nor LONG" in caplog.text) is (status not in {"FLAT", "LONG"})


@pytest.mark.parametrize("probability", [1.5, -0.1, np.nan, np.inf, None, "0.9", True])
def test_what_is_no_probability_is_never_acted_on(probability: Any) -> None:
    with pytest.raises(StageFailed, match="is no probability"):
        SupervisedNNStrategy({}).generate_trade_action(probability, "FLAT")


@pytest.mark.parametrize("hours", [-1, np.nan, np.inf, None, "9"])
def test_what_is_no_time_is_refused(hours: Any) -> None:
    with pytest.raises(InvalidPosition, match="time_in_position_hours"):
        SupervisedNNStrategy({}).generate_trade_action(0.5, "LONG", hours)


@pytest.mark.parametrize(
    "config",
    [
        {"signal_threshold": None},
        {"signal_threshold": 1.2},
        {"exit_threshold": -0.1},
        {"max_holding_period_hours": 0},
        {"signal_threshold": "high"},
    ],
)
def test_a_threshold_that_is_none_is_refused_when_it_is_set(config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the configuration cannot be used"):
        SupervisedNNStrategy(config)


# Loading.


def test_without_files_nothing_is_loaded_and_nothing_decided(features: pd.DataFrame) -> None:
    strategy = SupervisedNNStrategy({})
    assert (strategy.model, strategy.scaler, strategy.asset_id_map) == (None, None, None)
    assert strategy.prepare_input_sequence(features, "IBM") == (None, None)
    assert "call load_dependencies" in str(strategy.latest_refusal)
    assert strategy.on_bar_data({"symbol": "IBM"}, features, {}) == "HOLD"
    with pytest.raises(StageFailed, match="no model is loaded"):
        strategy.get_model_prediction(torch.zeros(1, 24, 23), torch.tensor([0]))


def test_a_misspelt_key_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    SupervisedNNStrategy({"signal_treshold": 0.9, "exit_threshold": None, "feature_list": []})
    assert caplog.messages == ["the configuration has keys that nothing reads: signal_treshold"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_path": "best_model.pt"}, "leave out bundle, or model_path"),
        ({"feature_list": ["close"]}, "feature_list is not that of the bundle"),
        ({"lookback_window": 25}, "lookback_window is 25, the bundle's is 24"),
        ({"signal_threshold": 2}, "signal_threshold is 2"),
        ({"bundle": 5}, "bundle is 5; it must be a path"),
    ],
)
def test_what_contradicts_a_bundle_is_refused(settings: dict[str, Any], reason: str) -> None:
    agreeing = {"bundle": str(PRODUCTION), "lookback_window": LOOKBACK, "feature_list": list(TECH23.features)}
    assert SupervisedNNStrategy(agreeing).model is not None
    with pytest.raises(ConfigError, match=reason):
        SupervisedNNStrategy({**agreeing, **settings})


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"model_path": 5}, "model_path is 5; it must be a path"),
        ({"feature_list": 5}, "feature_list is 5; it must be a list of names"),
        ({"asset_id_map": ["IBM"]}, "asset_id_map is a list; it must be a dict"),
        ({"use_pooling": "no"}, "use_pooling is 'no'"),
        ({"lookback_window": "24"}, "lookback_window is '24'"),
        ({"lookback_window": 30}, "lookback_window says 30 rows, but the mlp takes 24"),
        ({"feature_list": None}, r'set config\["feature_list"\] to the names'),
        ({"asset_id_map_path": None}, r'give the one it was trained with as config\["asset_id_map_path"\]'),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_in_its_words(
    classes: Any, configure: Configure, settings: dict[str, Any], reason: str
) -> None:
    config = configure(network(classes, "mlp"), "module", scaling("global"))
    with pytest.raises((ConfigError, BundleError), match=reason) as refused:
        SupervisedNNStrategy({**config, **settings})
    assert "--" not in str(refused.value)


@pytest.mark.parametrize("key", ["model_path", "scaler_path"])
def test_a_path_that_is_not_given_or_leads_nowhere_is_named(classes: Any, configure: Configure, key: str) -> None:
    config = configure(network(classes, "mlp"), "module", scaling("global"))
    strategy = SupervisedNNStrategy({**config, key: None})
    with pytest.raises(ValueError, match=f"{key} must be specified in config") as refused:
        strategy.load_dependencies()
    assert isinstance(refused.value, MissingSetting)
    with pytest.raises(FileNotFoundError, match="file not found: /nowhere") as missing:
        SupervisedNNStrategy({**config, key: "/nowhere"})
    assert isinstance(missing.value, MissingFile)


def test_a_map_that_is_not_there_is_no_warning(classes: Any, configure: Configure) -> None:
    config = configure(network(classes, "mlp"), "module", scaling("global"))
    with pytest.raises(FileNotFoundError, match="Asset map file not found"):
        SupervisedNNStrategy({**config, "asset_id_map_path": "/nowhere"})
    with pytest.raises(BundleError, match="there is no asset map"):
        SupervisedNNStrategy({**config, "asset_id_map_path": None})


def test_a_pickle_needs_trust_and_is_then_read_in_this_process(classes: Any, configure: Configure) -> None:
    config = configure(network(classes, "mlp"), "module", scaling("global"))
    for trust in (False, None, "yes", 1):
        with pytest.raises(BundleError, match=r'config\["trust_pickle"\] = True: it then runs, in this process'):
            SupervisedNNStrategy({**config, "trust_pickle": trust})
    assert SupervisedNNStrategy(config).asset_id_map is not None  # the class lives in this process only


def test_files_that_do_not_belong_together_are_refused(classes: Any, configure: Configure) -> None:
    config = configure(network(classes, "gru_attention"), "module", scaling("global"))
    with pytest.raises(BundleError, match="the model takes 23 features, the feature list names 22"):
        SupervisedNNStrategy({**config, "feature_list": config["feature_list"][:-1]})
    with pytest.raises(ConfigError, match="lookback_window is 0"):
        SupervisedNNStrategy({**config, "lookback_window": 0})
    two = configure(network(classes, "gru_attention", outputs=2), "module", scaling("global"))
    with pytest.raises(BundleError, match="a head of unknown meaning"):
        SupervisedNNStrategy(two)


# Failing closed.


@pytest.mark.parametrize(
    ("spoil", "symbol", "error"),
    [
        (lambda f: f, "TSLA", UnknownSymbol),
        (lambda f: f, None, UnknownSymbol),
        (lambda f: f, "", UnknownSymbol),
        (lambda f: f.tail(LOOKBACK - 1), "IBM", TooFewBars),
        (lambda f: f.drop(columns="OBV"), "IBM", MissingColumns),
        (lambda f: rows(f, OBV=np.nan, volume=np.nan, vwap=np.nan), "IBM", TooManyMissing),
        (lambda f: rows(f, OBV=[*[np.nan] * (len(f) - 1), 1.0]), "IBM", TooManyMissing),
        (lambda f: rows(f, OBV="many"), "IBM", WrongType),
        (lambda f: pd.concat([f, f[["close"]]], axis=1), "IBM", UnknownColumns),
        (lambda f: rows(f, timestamp=range(len(f)))[::-1], "IBM", UnsortedTimestamps),
        (lambda f: rows(f, timestamp="2020-01-01"), "IBM", UnsortedTimestamps),
        (lambda f: f.set_index(pd.date_range("2020", periods=len(f), freq="h"))[::-1], "IBM", UnsortedTimestamps),
        (lambda _: None, "IBM", WrongType),
        (lambda f: f, ["IBM"], UnknownSymbol),
        (lambda f: f, 2, UnknownSymbol),
    ],
    ids=[
        *("unknown symbol", "no symbol", "empty symbol", "too few", "column", "NaN", "first row", "text"),
        *("column twice", "numbers descend", "one time", "times descend", "no frame", "a list", "a number"),
    ],
)
def test_data_that_cannot_be_used_gives_nothing_and_says_why(
    strategy: SupervisedNNStrategy, features: pd.DataFrame, spoil: Any, symbol: Any, error: type[Exception]
) -> None:
    frame = spoil(features)
    assert strategy.prepare_input_sequence(frame, symbol) == (None, None)
    assert isinstance(strategy.latest_refusal, error)
    flat, long = {"position_type": "FLAT"}, {"position_type": "LONG", "time_in_position_hours": 8}
    assert strategy.on_bar_data({"symbol": symbol}, frame, flat) == "HOLD"
    assert strategy.on_bar_data({"symbol": symbol}, frame, long) == "SELL"  # the exit needs no data
    assert strategy.latest_prediction_probabilities is None


def test_times_that_ascend_or_that_nobody_can_read_do_no_harm(
    strategy: SupervisedNNStrategy, features: pd.DataFrame
) -> None:
    n = len(features)
    days = pd.date_range("2020", periods=n, freq="D", tz="America/New_York")
    assert strategy.prepare_input_sequence(features.set_index(days), "IBM")[0] is not None
    for times in (days, days.strftime("%d.%m.%Y"), days.strftime("%Y-%m-%d"), range(n)):
        assert strategy.prepare_input_sequence(rows(features, timestamp=times), "IBM")[0] is not None


def test_features_that_are_given_in_part_are_not_computed_anew(
    served: SupervisedNNStrategy, strategy: SupervisedNNStrategy, bars: dict[str, Bars]
) -> None:
    history = bars_frame(window(bars["IBM"]))
    assert served.prepare_input_sequence(history, "IBM")[0] is not None
    assert served.prepare_input_sequence(rows(history, RSI_14=50.0), "IBM") == (None, None)
    assert "Missing features: vwap" in str(served.latest_refusal)
    assert strategy.prepare_input_sequence(history, "IBM") == (None, None)  # its features were computed elsewhere
    assert isinstance(strategy.latest_refusal, MissingColumns)


def test_a_model_on_other_features_takes_them_by_its_own_list(classes: Any, configure: Configure) -> None:
    names = [f"signal_{i}" for i in range(23)]
    module, fitted = network(classes, "gru_attention"), scaling("global")
    strategy = SupervisedNNStrategy(configure(module, "module", fitted, feature_list=names))
    given = unscaled(np.random.default_rng(8), LOOKBACK)
    windows, ids = strategy.prepare_input_sequence(pd.DataFrame(given, columns=names)[names[::-1]], "AAPL")
    assert windows is not None
    assert strategy.get_model_prediction(windows, ids) == pytest.approx(
        original(module, fitted, "AAPL", given), abs=1e-6
    )


def test_gaps_are_filled_from_earlier_rows_only(strategy: SupervisedNNStrategy, features: pd.DataFrame) -> None:
    gap = features.copy()
    gap.loc[gap.index[-3], "RSI_14"] = np.nan
    filled = features.copy()
    filled.loc[filled.index[-3], "RSI_14"] = features["RSI_14"].iloc[-4]
    (got, _), (expected, _) = (strategy.prepare_input_sequence(frame, "IBM") for frame in (gap, filled))
    assert got is not None
    assert expected is not None
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("window_tensor", "ids", "reason"),
    [
        (torch.zeros(1, 24, 22), torch.tensor([0]), "windows of shape"),
        (torch.zeros(1, 23, 23), torch.tensor([0]), "windows of shape"),
        (torch.zeros(2, 24, 23), torch.tensor([0, 1]), "2 asset ids"),
        (torch.zeros(2, 24, 23), torch.tensor([0]), "windows of shape"),
        (torch.full((1, 24, 23), float("nan")), torch.tensor([0]), "is no probability"),
        (torch.zeros(1, 24, 23), torch.tensor([99]), "asset id 99 is that of no symbol"),
        (
            torch.zeros(1, 24, 23),
            torch.tensor([3]),
            "asset id 3 is that of no symbol",
        ),  # a row of the embedding all the same
        (
            torch.zeros(1, 24, 23),
            torch.tensor([-1]),
            "asset id -1 is that of no symbol",
        ),  # the last row, to ONNX Runtime
        (torch.zeros(1, 24, 23), torch.tensor([1.7]), "the asset id is of float32"),
        (torch.zeros(1, 24, 23), None, "needs an asset id"),
        (None, torch.tensor([0]), "the window is of object"),
        ("x", torch.tensor([0]), "the window is of"),
    ],
)
def test_a_prediction_that_fails_is_an_error_and_never_a_number(
    strategy: SupervisedNNStrategy, window_tensor: Any, ids: torch.Tensor | None, reason: str
) -> None:
    with pytest.raises(StageFailed, match=reason):
        strategy.get_model_prediction(window_tensor, ids)


def test_a_model_that_fails_never_buys_whatever_the_threshold(
    classes: Any, configure: Configure, features: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(network(classes, "mlp"), "module", scaling("global"), signal_threshold=0.0)
    strategy = SupervisedNNStrategy(config)
    assert strategy.on_bar_data({"symbol": "IBM"}, features, {}) == "BUY"

    def broken(*_: Any) -> None:
        raise RuntimeError("the GPU is gone")

    monkeypatch.setattr(type(strategy.model), "predict", broken)
    assert strategy.on_bar_data({"symbol": "IBM"}, features, {}) == "HOLD"
    assert isinstance(strategy.latest_refusal, StageFailed)
    assert strategy.latest_prediction_probabilities is None
    long = {"position_type": "LONG", "time_in_position_hours": 8}
    assert strategy.on_bar_data({"symbol": "IBM"}, features, long) == "SELL"


def test_a_bar_is_decided_on_and_what_was_seen_is_kept(
    strategy: SupervisedNNStrategy, features: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    action = strategy.on_bar_data({"symbol": "IBM", "true_label": 1}, features, {"position_type": "FLAT"})
    windows, ids = strategy.prepare_input_sequence(features, "IBM")
    assert windows is not None
    probability = strategy.get_model_prediction(windows, ids)
    assert action == ("BUY" if probability >= 0.7 else "HOLD")
    assert (strategy.latest_prediction_probabilities, strategy.latest_true_label) == (probability, 1)
    with caplog.at_level(logging.WARNING):
        assert strategy.on_bar_data({}, features, {"position_type": "SHORT"}) == "HOLD"
    for hours in (-1, "soon", None):
        bad = {"position_type": "LONG", "time_in_position_hours": hours}
        assert strategy.on_bar_data({"symbol": "IBM"}, features, bad) == "HOLD"
        assert isinstance(strategy.latest_refusal, InvalidPosition)


def test_arguments_that_are_none_at_all_never_buy_and_never_raise(
    strategy: SupervisedNNStrategy, features: pd.DataFrame
) -> None:
    nothing: Any = None
    long = {"position_type": "LONG", "time_in_position_hours": 8}
    strategy.config["signal_threshold"] = 0.0
    assert strategy.on_bar_data({"symbol": "IBM"}, features, nothing) == "HOLD"
    assert strategy.on_bar_data(nothing, features, {}) == "HOLD"
    assert strategy.on_bar_data(nothing, features, long) == "SELL"
    strategy.config["signal_threshold"] = None
    assert strategy.on_bar_data({"symbol": "IBM"}, features, {}) == "HOLD"


# MLflow.


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_run_gives_model_scaler_map_and_what_the_configuration_lacks(
    classes: Any, configure: Configure, features: pd.DataFrame, store: str, tmp_path: Path
) -> None:
    module, fitted = network(classes, "lstm_attention"), scaling("global")
    files = configure(module, "module", fitted)
    listed = write(tmp_path / "feature_list.json", files["feature_list"])
    with connected(store) as client:
        run_id = client.create_run(experiment_id(client, "elsewhere")).info.run_id
        client.log_artifact(run_id, files["model_path"], "best_model")
        for path in (files["scaler_path"], files["asset_id_map_path"], str(listed)):
            client.log_artifact(run_id, path)
        client.log_param(run_id, "lookback_window", 28)
        client.log_param(run_id, "signal_threshold", 0.35)
    config = {"tracking_uri": store, "max_holding_period_hours": 8, "lookback_window": 24, "trust_pickle": True}
    strategy = SupervisedNNStrategy(config)
    strategy.load_dependencies_from_mlflow(run_id)
    assert (config["lookback_window"], config["signal_threshold"]) == (28, 0.35)
    windows, ids = strategy.prepare_input_sequence(features, "IBM")
    assert windows is not None
    assert windows.shape == (1, 28, 23)
    expected = original(module, fitted, "IBM", features.to_numpy()[-28:])
    assert strategy.get_model_prediction(windows, ids) == pytest.approx(expected, abs=1e-6)
    with connected(store) as client:
        client.log_param(run_id, "exit_threshold", "unused here")
        odd = client.create_run(experiment_id(client, "elsewhere")).info.run_id
        client.log_artifact(odd, files["model_path"], "best_model")
        client.log_param(odd, "lookback_window", "long")
    with pytest.raises(ConfigError, match="a parameter of the run is no number"):
        SupervisedNNStrategy({"tracking_uri": store}).load_dependencies_from_mlflow(odd)
    untrusting = SupervisedNNStrategy({"tracking_uri": store})
    with pytest.raises(BundleError, match="trust_pickle"):
        untrusting.load_dependencies_from_mlflow(run_id)
    assert untrusting.model is None
    assert untrusting.config == {"tracking_uri": store}  # nothing of a run that was not loaded


def test_what_a_run_lacks_the_configuration_may_name(
    classes: Any, configure: Configure, features: pd.DataFrame, store: str
) -> None:
    module, fitted = network(classes, "gru_attention"), scaling("global")
    config = {**configure(module, "module", fitted), "tracking_uri": store, "model_path": None}
    with connected(store) as client:
        run_id = client.create_run(experiment_id(client, "bare")).info.run_id
        client.log_artifact(run_id, configure(module, "module", fitted)["model_path"], "best_model")
    strategy = SupervisedNNStrategy(config)
    strategy.load_dependencies_from_mlflow(run_id)
    windows, ids = strategy.prepare_input_sequence(features, "IBM")
    assert windows is not None
    expected = original(module, fitted, "IBM", features.to_numpy()[-LOOKBACK:])
    assert strategy.get_model_prediction(windows, ids) == pytest.approx(expected, abs=1e-6)


def test_a_parameter_that_is_none_is_not_set(classes: Any, configure: Configure, store: str) -> None:
    files = configure(network(classes, "lstm_attention"), "module", scaling("global"))
    with connected(store) as client:
        run_id = client.create_run(experiment_id(client, "elsewhere")).info.run_id
        client.log_artifact(run_id, files["model_path"], "best_model")
        client.log_param(run_id, "signal_threshold", None)
    config = {**files, "tracking_uri": store}
    del config["model_path"]
    strategy = SupervisedNNStrategy(config)
    strategy.load_dependencies_from_mlflow(run_id)
    assert "signal_threshold" not in strategy.config
    assert strategy.generate_trade_action(0.7, "FLAT") == "BUY"


def test_a_published_bundle_is_loaded_from_its_run(store: str, bars: dict[str, Bars]) -> None:
    published = publish_bundle(PRODUCTION, "Signals", "production", store)
    strategy = SupervisedNNStrategy({"tracking_uri": store, "signal_threshold": 0.99})
    strategy.load_dependencies_from_mlflow(published.run_id, "bundle")
    assert strategy.asset_id_map == load_bundle(PRODUCTION).symbol_to_id
    assert strategy.on_bar_data({"symbol": "IBM"}, bars_frame(window(bars["IBM"])), {}) == "HOLD"
    assert strategy.latest_prediction_probabilities is not None
