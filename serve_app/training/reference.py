"""What a model saw in training, summed up as the reference of its bundle, and how far a block strays by accident."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from serve_app.batches import WindowBatch
from serve_app.config import ModelConfig
from serve_app.errors import BundleError
from serve_app.model import Bundle, write_bundle
from serve_app.model.bundle import tag_of
from serve_app.monitor.drift import BLOCK, FALSE_ALARM_BLOCKS
from serve_app.monitor.statistics import Numbers, ks, ranks, repeated
from serve_app.pipeline import model_of, preprocess_of
from serve_app.reference import SCORE, Reference
from serve_app.training.samples import feature_table, make_samples
from serve_app.types import Bars, Float32Array, FloatArray

LEVELS = 101
"""Quantiles of a feature, from the smallest value to the largest."""
SIMULATED = 20_000
"""Blocks that are drawn from training."""
_AT_ONCE = 500


def seen_in_training(
    bundle: Bundle, bars_by_symbol: Mapping[str, Bars], until: np.datetime64
) -> dict[str, Float32Array]:
    """Return by symbol what the model saw at each bar up to `until`, and said: scaled features and score (n, F + 1)."""
    return {
        symbol: values
        for symbol in sorted(set(bundle.symbol_to_id) & set(bars_by_symbol))
        if len(values := _seen(bundle, symbol, bars_by_symbol[symbol], until)) >= BLOCK
    }


def make_reference(bundle: Bundle, seen: Mapping[str, Float32Array], seed: int = 0) -> Reference:
    """Sum up what was seen in training.

    A feature's limit is what its distance in blocks of consecutive bars of one symbol, drawn from training, exceeds so
    rarely that in one block of FALSE_ALARM_BLOCKS any feature does (maximum over features, each in units of its own
    95 % quantile; Westfall and Young 1993). Blocks that mix symbols stray less. Raises BundleError without symbols.
    """
    if not seen:
        raise BundleError(f"no symbol has {BLOCK} bars of training that the model can see: there is no reference")
    rng = np.random.default_rng(seed)
    levels = np.linspace(0, 1, LEVELS)
    quantiles = {symbol: np.quantile(values, levels, axis=0).T.astype(np.float32) for symbol, values in seen.items()}
    drawn = {symbol: _ranks(values, quantiles[symbol], rng) for symbol, values in seen.items()}
    stays = [repeated(values, np.full(len(values), symbol))[0] for symbol, values in seen.items()]
    return Reference(
        symbols=np.array(list(seen)),
        features=np.array([*bundle.config.feature_list, SCORE]),
        quantiles=np.stack([quantiles[symbol] for symbol in seen]),
        repeats=np.mean(stays, axis=0),
        ks_limits=_limits(drawn, rng),
    )


def _seen(bundle: Bundle, symbol: str, bars: Bars, until: np.datetime64) -> Float32Array:
    config, preprocess = bundle.config, preprocess_of(bundle)
    table = feature_table(bars, preprocess.feature_set, config.lookback_window, config.label, config.exogenous)
    asset_id = bundle.asset_id(symbol)
    training = {asset_id: table.timestamps <= until}
    samples = make_samples({asset_id: table}, training, preprocess.scaler, config.lookback_window)
    model = model_of(bundle, ModelConfig(warm_up_rows=1))

    async def scores() -> list[FloatArray]:
        batches = (
            WindowBatch(bundle.digest, samples.windows[cut], samples.asset_ids[cut]) for cut in _cuts(len(samples))
        )
        return [(await model.run(batch)).probabilities for batch in batches]

    said = np.concatenate([np.empty(0), *asyncio.run(scores())])
    seen: Float32Array = np.column_stack([samples.windows[:, -1], said]).astype(np.float32)
    return seen


def _cuts(n: int) -> Iterator[slice]:
    for start in range(0, n, _AT_ONCE):
        yield slice(start, start + _AT_ONCE)


def _ranks(values: Float32Array, quantiles: Float32Array, rng: np.random.Generator) -> FloatArray:
    rows = [values[cut] for cut in _cuts(len(values))]
    return np.concatenate(
        [ranks(part, np.broadcast_to(quantiles, (len(part), *quantiles.shape)), rng) for part in rows]
    )


def blocks(by_symbol: Mapping[str, Numbers], n: int, rng: np.random.Generator) -> Iterator[tuple[str, slice]]:
    """Draw blocks of consecutive rows, each of one symbol, all starts alike likely."""
    names = list(by_symbol)
    starts = np.array([len(by_symbol[name]) - BLOCK + 1 for name in names])
    for which in rng.choice(len(names), n, p=starts / starts.sum()):
        start = int(rng.integers(starts[which]))
        yield names[which], slice(start, start + BLOCK)


def _limits(drawn: Mapping[str, FloatArray], rng: np.random.Generator) -> FloatArray:
    chosen = list(blocks(drawn, SIMULATED, rng))
    distances = np.concatenate(
        [ks(np.stack([drawn[name][cut] for name, cut in chosen[part]])) for part in _cuts(SIMULATED)]
    )
    units = np.quantile(distances, 0.95, axis=0)
    worst = (distances / units).max(axis=1)
    limits: FloatArray = units * np.quantile(worst, 1 - 1 / FALSE_ALARM_BLOCKS)
    return limits


def with_reference(
    source: Bundle, bars_by_symbol: Mapping[str, Bars], until: np.datetime64, folder: Path, version: str
) -> Bundle:
    """Write a bundle again, as another version, with the reference of the bars that it was trained on.

    Raises BundleError for a model whose features are not computed here, or without enough bars of any symbol, and
    FileExistsError when the folder is there already.
    """
    if not source.config.bars_needed:
        raise BundleError(f"{source.path}: its features are not computed here, so bars do not say what it saw")
    reference = make_reference(source, seen_in_training(source, bars_by_symbol, until))
    named = {"model_version": version, "git_tag": tag_of(version)}
    config = source.config.model_copy(update={"model_version": version})
    metadata = {**source.metadata, **named}
    return write_bundle(replace(source, path=folder, config=config, metadata=metadata, reference=reference))
