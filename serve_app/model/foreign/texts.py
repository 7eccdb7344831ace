"""Symbol mappings and feature lists, from JSON, text or a checkpoint."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from serve_app.errors import BundleError

LIST_KEYS = ("feature_list", "features")
HOW_TO_LIST = (
    "give --feature-list FILE: the names of the model's features in the order that it was trained on, one a line or as"
    " a JSON list"
)


def parse_json(content: bytes, what: str) -> Any:
    """Parse JSON, refusing an object that gives a key twice. Raises BundleError."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
        if twice:
            raise BundleError(f"{what} has {twice[0]!r} twice; which of them is meant?")
        return dict(pairs)

    try:
        return json.loads(content, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{what} is not JSON: {error}") from error


def read_mapping(value: Any, num_assets: int) -> dict[str, int]:
    """Return symbol → row of the embedding, from a nested or a flat mapping. Raises BundleError."""
    flat = value.get("symbol_to_id", value) if isinstance(value, Mapping) else None
    if not isinstance(flat, Mapping) or not flat:
        raise BundleError(
            'the asset map names no symbol; it must be {"AAPL": 0, …} or {"symbol_to_id": {"AAPL": 0, …}}'
        )
    symbols: dict[int, str] = {}
    for symbol, number in flat.items():
        if not symbol or not isinstance(number, int) or isinstance(number, bool):
            raise BundleError(f"the asset map gives {symbol!r} the id {number!r}; ids are whole numbers, one a symbol")
        if not 0 <= number < num_assets:
            raise BundleError(
                f"the asset map gives {symbol!r} the id {number}, the model's embedding has the rows 0 to"
                f" {num_assets - 1}: they do not belong together; give the map that the model was trained with"
            )
        if number in symbols:
            raise BundleError(f"the asset map gives {symbols[number]!r} and {symbol!r} the same id {number}")
        symbols[number] = symbol
    return {symbol: number for number, symbol in sorted(symbols.items())}


def parse_feature_list(content: bytes) -> Any:
    """Return what a file of feature names says: JSON, or text with one name a line. Raises BundleError."""
    if content.lstrip()[:1] not in (b"[", b"{"):
        try:
            lines = content.decode().splitlines()
        except UnicodeDecodeError as error:
            raise BundleError(f"the feature list is not text: {error}; {HOW_TO_LIST}") from error
        return [line.strip() for line in lines if line.strip()]
    value = parse_json(content, "the feature list")
    return value if isinstance(value, list) else in_config(value)


def in_config(config: Mapping[str, Any]) -> Any:
    """Return the feature list of a configuration, None if it has none."""
    return next((config[key] for key in LIST_KEYS if key in config), None)


def read_feature_list(value: Any) -> tuple[str, ...]:
    """Return the names of the features in order. Raises BundleError."""
    if not value:
        raise BundleError(
            f"nothing says which features the model was trained on; a wrong order would go unnoticed, so it is not"
            f" guessed: {HOW_TO_LIST}"
        )
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise BundleError(f"the feature list is not a list of names; {HOW_TO_LIST}")
    twice = sorted({name for name in value if list(value).count(name) > 1})
    if twice:
        raise BundleError(f"the feature list has {twice[0]!r} twice; name each feature once")
    return tuple(value)
