"""What `/docs` shows beyond the routes: request schemas of the raw routes, and examples made from a golden case."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve_app.types import Bars, FeatureRows, FloatArray, SignalRequest

_REF = "#/components/schemas/{model}"


@dataclass(frozen=True, slots=True)
class Examples:
    """Bodies that can be sent as they stand, by name."""

    signals: Mapping[str, Any]
    batch: Mapping[str, Any]
    predict: Mapping[str, Any]


def bars_as_columns(bars: Bars) -> dict[str, list[Any]]:
    """Return bars as JSON columns, null where a value is missing, without columns that hold nothing."""
    whole_seconds = (bars.timestamp == bars.timestamp.astype("datetime64[s]")).all()
    texts = np.datetime_as_string(bars.timestamp, unit="s" if whole_seconds else "us").tolist()
    given = {name: values for name, values in bars.columns.items() if not np.isnan(values).all()}
    return {"timestamp": [f"{text}Z" for text in texts], **{name: _numbers(values) for name, values in given.items()}}


def _numbers(values: FloatArray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def bars_as_rows(bars: Bars) -> list[dict[str, Any]]:
    """Return bars as JSON rows."""
    columns = bars_as_columns(bars)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def examples_of(requests: Sequence[SignalRequest]) -> Examples:
    """Make examples from requests, such as a bundle's golden cases."""
    bodies = [{"symbol": request.symbol, **_as_columns(request.history)} for request in requests]
    form, rows = _as_rows(requests[0].history)
    long = {**bodies[0], "position": {"status": "LONG", "time_in_position_hours": 9600, "time_in_position_bars": 400}}
    return Examples(
        signals={f"{form} as columns": bodies[0], "a position held for long": long},
        batch={"two symbols": {"requests": bodies[:2]}},
        predict={form: {"symbol": requests[0].symbol, "historical_data": rows}},
    )


def _as_columns(history: Bars | FeatureRows) -> dict[str, Any]:
    if isinstance(history, Bars):
        return {"bars": bars_as_columns(history)}
    return {"features": {"columns": list(history.columns), "rows": [_numbers(row) for row in history.values]}}


def _as_rows(history: Bars | FeatureRows) -> tuple[str, list[dict[str, Any]]]:
    if isinstance(history, Bars):
        return "bars", bars_as_rows(history)
    return "features", [dict(zip(history.columns, _numbers(row), strict=True)) for row in history.values]


def request_body(model: type[BaseModel], examples: Mapping[str, Any], *binary: str) -> dict[str, Any]:
    """Return the OpenAPI part that documents a route which reads its raw body: JSON, or other media types."""
    content: dict[str, Any] = {
        "application/json": {
            "schema": {"$ref": _REF.format(model=model.__name__)},
            "examples": {name: {"value": value} for name, value in examples.items()},
        }
    }
    content |= {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in binary}
    return {"requestBody": {"required": True, "content": content}}


def describe(api: FastAPI, bodies: Sequence[type[BaseModel]], with_keys: bool) -> None:
    """Add the schemas of raw request bodies, and the bearer scheme where keys are needed, to the OpenAPI document."""
    generate = api.openapi

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            document = generate()
            _, definitions = models_json_schema([(body, "validation") for body in bodies], ref_template=_REF)
            components = document.setdefault("components", {})
            components.setdefault("schemas", {}).update(definitions["$defs"])
            if with_keys:
                components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                document["security"] = [{"key": []}]
        assert api.openapi_schema is not None  # noqa: S101  `generate` keeps what it made
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
