"""Keys in a Serve config that Ray Serve would silently ignore.

Serve's schemas drop what they do not know, so a misspelt `max_ongoing_request` changes nothing and says nothing.
The check walks Serve's own pydantic models; it holds no copy of them. What Serve types as a plain dictionary (`args`,
`user_config`, `runtime_env`) is free-form and not looked into.
"""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ray.serve.schema import ServeDeploySchema


def unknown_keys(document: dict[str, Any]) -> list[str]:
    """Return one line for every key that Serve would ignore, with the likely intended one."""
    return list(_walk(document, [ServeDeploySchema], ""))


def faults(document: dict[str, Any]) -> list[str]:
    """Return unknown keys and whatever else Serve's own validation would refuse."""
    try:
        ServeDeploySchema.model_validate(document)
    except ValidationError as error:
        return unknown_keys(document) + [f"{_path(e['loc'])}: {e['msg']}" for e in error.errors()]
    return unknown_keys(document)


def _walk(value: object, models: Sequence[type[BaseModel]], path: str) -> Iterator[str]:
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from _walk(item, models, f"{path}[{position}]")
    if not isinstance(value, dict) or not models:
        return
    fields = {name: field.annotation for model in models for name, field in model.model_fields.items()}
    prefix = f"{path}." if path else ""
    for key, item in value.items():
        if key in fields:
            yield from _walk(item, list(_models(fields[key])), f"{prefix}{key}")
        else:
            yield f"{prefix}{key}: unknown{_suggestion(str(key), fields)}"


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _suggestion(key: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"


def _path(location: Sequence[int | str]) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return "".join(steps).removeprefix(".")
