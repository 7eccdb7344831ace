import asyncio
from typing import Any

import numpy as np
import pandas as pd
import pytest

from serve_app.batches import WindowBatch
from serve_app.errors import StageFailed, TooFewBars, UnknownSymbol, WrongType
from serve_app.pipeline import Pipeline
from serve_app.supervised import BatchInferenceEngine
from serve_app.types import Bars, SignalRequest
from tests.factories import PRODUCTION, window
from tests.unit.model.foreign.files import CLASS_OF, LOOKBACK, SYMBOLS, network, original, scaling, unscaled
from tests.unit.supervised.conftest import Configure, bars_frame, frame_of


def engine(config: dict[str, Any]) -> BatchInferenceEngine:
    paths = {"model_path", "scaler_path"}
    rest = {key: value for key, value in config.items() if key not in paths}
    return BatchInferenceEngine(config["model_path"], config["scaler_path"], rest)


@pytest.mark.parametrize("form", ["module", "model_state_dict", "onnx"])
@pytest.mark.parametrize("architecture", CLASS_OF)
def test_every_symbol_gets_the_probability_of_the_original(
    classes: Any, configure: Configure, architecture: str, form: str
) -> None:
    module, fitted, rng = network(classes, architecture), scaling("global"), np.random.default_rng(4)
    frames = {symbol: frame_of(unscaled(rng, LOOKBACK)) for symbol in SYMBOLS}
    answers = engine(configure(module, form, fitted)).predict_batch(frames)
    assert list(answers) == list(SYMBOLS)
    for symbol, frame in frames.items():
        assert answers[symbol] == pytest.approx(original(module, fitted, symbol, frame.to_numpy()), abs=1e-6)


def test_the_map_may_be_a_dict_and_an_unknown_symbol_gets_nobody_elses_embedding(
    classes: Any, configure: Configure
) -> None:
    config = configure(network(classes, "mlp"), "module", scaling("global"), asset_id_map=SYMBOLS)
    del config["asset_id_map_path"]
    batch = engine(config)
    good = frame_of(unscaled(np.random.default_rng(4), LOOKBACK))
    answers = batch.predict_batch({"TSLA": good, "IBM": good, "AAPL": good.tail(3)})
    assert list(answers) == ["IBM"]
    assert {symbol: type(error) for symbol, error in batch.refusals.items()} == {
        "TSLA": UnknownSymbol,
        "AAPL": TooFewBars,
    }
    assert batch.predict_batch({}) == {}
    assert batch.refusals == {}
    assert batch.predict_batch({"IBM": pd.DataFrame()}) == {}
    nothing: Any = None
    assert list(batch.predict_batch({"AAPL": nothing, "IBM": good})) == ["IBM"]  # one that is none harms no other
    assert isinstance(batch.refusals["AAPL"], WrongType)


def test_a_bundle_answers_many_symbols_from_their_bars(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    symbols = ("AAPL", "IBM", "MSFT")
    requests = [SignalRequest(symbol, window(bars[symbol])) for symbol in symbols]
    outcomes = asyncio.run(pipeline.run([pipeline.row(request) for request in requests]))
    frames = {symbol: bars_frame(window(bars[symbol])) for symbol in (*symbols, "FB")}
    batch = BatchInferenceEngine(None, None, {"bundle": str(PRODUCTION)})
    answers = batch.predict_batch(frames)
    assert answers == pytest.approx(
        {s: outcome.probability for s, outcome in zip(symbols, outcomes, strict=True)}, abs=1e-6
    )
    assert list(batch.refusals) == ["FB"]


def test_all_symbols_share_one_forward_pass(
    classes: Any, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = engine(configure(network(classes, "mlp"), "module", scaling("global")))
    model, sizes = type(batch._in_process.model), []
    forward = model.forward

    def counted(self: Any, windows: WindowBatch) -> Any:
        sizes.append(len(windows))
        return forward(self, windows)

    monkeypatch.setattr(model, "forward", counted)
    good = frame_of(unscaled(np.random.default_rng(4), LOOKBACK))
    assert len(batch.predict_batch({**dict.fromkeys(SYMBOLS, good), "TSLA": good})) == len(SYMBOLS)
    assert sizes == [len(SYMBOLS)]


def test_what_is_not_finite_is_a_refusal_and_a_model_that_fails_an_error(
    classes: Any, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = engine(configure(network(classes, "mlp"), "module", scaling("global")))
    frames = {"IBM": frame_of(unscaled(np.random.default_rng(4), LOOKBACK))}
    model = type(batch._in_process.model)
    monkeypatch.setattr(model, "forward", lambda *_: np.array([np.nan], dtype=np.float32))
    assert batch.predict_batch(frames) == {}
    assert "no finite probability" in str(batch.refusals["IBM"])

    def broken(*_: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model, "forward", broken)
    with pytest.raises(StageFailed, match="out of memory"):
        batch.predict_batch(frames)
