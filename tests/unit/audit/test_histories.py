import re

import numpy as np
import pytest

from serve_app.audit import histories_of
from serve_app.errors import InvalidBar, TooFewBars, UnknownSymbol, UnusableRequest
from serve_app.pipeline import Pipeline, rules_of
from serve_app.types import Bars
from tests.factories import NEEDED, with_columns, with_value
from tests.unit.test_imports import loaded_by


def refusal(pipeline: Pipeline, bars: dict[str, Bars], *symbols: str) -> UnusableRequest:
    with pytest.raises(UnusableRequest) as refused:
        histories_of(pipeline.bundle, rules_of(pipeline.bundle), bars, symbols)
    return refused.value


def test_what_the_bundle_does_not_know_or_has_too_few_bars_is_left_out(
    pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    given = {**bars, "MSFT": bars["MSFT"].tail(NEEDED)}
    histories = histories_of(pipeline.bundle, rules_of(pipeline.bundle), given)
    assert list(histories.bars) == ["AAPL", "GOOG", "IBM"]
    assert "not trained on 'FB'" in histories.left_out["FB"]
    assert re.search(r"273 bars, .* at least 274", histories.left_out["MSFT"])


def test_only_chosen_symbols_are_taken(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    histories = histories_of(pipeline.bundle, rules_of(pipeline.bundle), bars, ["MSFT", "IBM"])
    assert list(histories.bars) == ["IBM", "MSFT"]
    assert not histories.left_out


def test_a_symbol_that_was_chosen_is_never_left_out_silently(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    assert isinstance(refusal(pipeline, bars, "IBM", "FB"), UnknownSymbol)
    assert "the data has no TSLA; it has AAPL, FB" in str(refusal(pipeline, bars, "TSLA"))
    assert isinstance(refusal(pipeline, {"IBM": bars["IBM"].tail(NEEDED)}, "IBM"), TooFewBars)


def test_data_without_any_usable_symbol_is_refused(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    assert isinstance(refusal(pipeline, {"FB": bars["FB"]}), UnknownSymbol)
    assert isinstance(refusal(pipeline, {}), TooFewBars)


def test_a_bad_bar_is_named_with_its_symbol(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    error = refusal(pipeline, {**bars, "IBM": with_value(bars["IBM"], "low", 17, -1.0)})
    assert isinstance(error, InvalidBar)
    assert str(error).startswith("IBM: bars[17] at ")


def test_columns_that_the_features_do_not_know_are_left_aside(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    given = {"IBM": with_columns(bars["IBM"], spread=0.01, vwap=np.nan)}
    histories = histories_of(pipeline.bundle, rules_of(pipeline.bundle), given)
    assert set(histories.bars["IBM"].columns) == {"open", "high", "low", "close", "volume", "vwap"}


def test_audits_and_doctor_import_nothing_heavy() -> None:
    statements = "import serve_app.audit, serve_app.doctor, serve_app.cli.examine"
    assert loaded_by(statements) == set()
