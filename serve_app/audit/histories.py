"""Which histories of a data file an audit of a bundle can use, and the requests that they stand for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.errors import FeaturesNeeded, TooFewBars, UnknownSymbol, UnusableRequest
from serve_app.model import Bundle
from serve_app.preprocess import HistoryRules, check_bars
from serve_app.types import Bars, SignalRequest

Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""

PROBABILITY_TOLERANCE = 1e-6
"""A window's place in a batch may change the last digits of its probability."""
SHOWN = 10
"""First findings that a report keeps."""


def silent(_done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Histories:
    """Checked bars by symbol, with the columns that the feature set knows and no others."""

    bars: Mapping[str, Bars]
    left_out: Mapping[str, str]
    """Symbol of the data → why nothing can be decided about it."""


def histories_of(
    bundle: Bundle, rules: HistoryRules, bars_by_symbol: Mapping[str, Bars], symbols: Sequence[str] = ()
) -> Histories:
    """Choose the symbols that the bundle knows and that have enough bars for one window and one bar after it.

    With `symbols` exactly those. Raises FeaturesNeeded, UnknownSymbol, TooFewBars, or what is wrong with the
    first bad bar.
    """
    if not rules.feature_set.computed:
        raise FeaturesNeeded(
            f"{bundle.version} sees features that are not computed here, so there is nothing to hold its bars against"
        )
    for symbol in symbols:
        if symbol not in bars_by_symbol:
            raise UnknownSymbol(f"the data has no {symbol}; it has {', '.join(sorted(bars_by_symbol))}")
    considered = sorted(set(symbols)) or sorted(bars_by_symbol)
    refusals = {symbol: _refusal(bundle, rules, symbol, bars_by_symbol[symbol]) for symbol in considered}
    refused = {symbol: error for symbol, error in refusals.items() if error is not None}
    chosen = [symbol for symbol in considered if symbol not in refused]
    if refused and (symbols or not chosen):
        raise next(iter(refused.values()))
    if not chosen:
        raise TooFewBars("the data holds no bars at all")
    checked = {symbol: _checked(symbol, bars_by_symbol[symbol], rules) for symbol in chosen}
    return Histories(checked, {symbol: str(error) for symbol, error in refused.items()})


def _refusal(bundle: Bundle, rules: HistoryRules, symbol: str, bars: Bars) -> UnusableRequest | None:
    try:
        bundle.asset_id(symbol)
    except UnknownSymbol as error:
        return error
    if len(bars) <= rules.bars_needed:
        return TooFewBars(
            f"{symbol} has {len(bars)} bars, too few to examine: at least {rules.bars_needed + 1} are needed"
        )
    return None


def _checked(symbol: str, bars: Bars, rules: HistoryRules) -> Bars:
    known = {name: values for name, values in bars.columns.items() if name in rules.feature_set.columns}
    history = Bars(bars.timestamp, known)
    try:
        check_bars(history, rules.feature_set)
    except UnusableRequest as error:
        raise type(error)(f"{symbol}: {error}", **error.detail) from error
    return history


def request_at(symbol: str, bars: Bars, end: int, bars_needed: int) -> SignalRequest:
    """Return what a client would have sent after bar `end - 1`: the bars that one window reads, and no more."""
    return SignalRequest(symbol, bars.until(end).tail(bars_needed))


def iso(time: np.datetime64) -> str:
    """Return a time as text."""
    return np.datetime_as_string(time, unit="s") + "Z"
