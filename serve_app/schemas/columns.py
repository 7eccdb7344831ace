"""JSON values → columns of numbers and times, each cell's type checked and named when it is wrong.

Whether the numbers make sense is for `serve_app.preprocess.validation` to say. A message never repeats more of what the
client sent than a few characters.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from serve_app.errors import MissingColumns, UnknownColumns, WrongType
from serve_app.types import FloatArray, TimeArray

MAX_COLUMNS = 64
_COLUMN_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_USUAL_TIME = b"0000-00-00T00:00:00Z"
_DIGITS = bytes.maketrans(b"123456789", b"000000000")
FIRST_YEAR = np.datetime64("0001-01-01")
"""Of Python's datetime; numpy knows earlier ones."""
_NUMBERS = {int, float, type(None)}
_SHOWN = 40

Cell = Callable[[int], str]
"""How the cell in a row of a column is called in a message."""


def shown(value: Any) -> str:
    """Return a value as a message may repeat it: the start of a text, the kind of anything that holds others."""
    if isinstance(value, str):
        return repr(value[:_SHOWN])
    kinds: dict[type, str] = {dict: "an object", list: "a list", type(None): "null"}
    return kinds.get(type(value)) or f"{value!r:.{_SHOWN}}"


def check_kind(values: Any, kind: type, where: str) -> None:
    """Refuse what is not a list of `kind`, naming the first element that is not. Raises WrongType."""
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    if not isinstance(values, list):
        raise WrongType(f"{where} must be a list, not {shown(values)}")
    if not set(map(type, values)) <= {kind}:
        row = next(i for i, value in enumerate(values) if type(value) is not kind)
        raise WrongType(f"{where}[{row}] must be {names[kind]}, not {shown(values[row])}")


def parse_time(value: Any, where: str) -> datetime:
    """Parse an ISO 8601 text with a time zone into UTC. Raises WrongType."""
    if not isinstance(value, str):
        raise WrongType(f"{where} must be an ISO 8601 text such as 2013-03-01T00:00:00Z, not {shown(value)}")
    try:
        time = datetime.fromisoformat(value)
        in_utc = time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise WrongType(f"{where} is not ISO 8601: {shown(value)}; write it as 2013-03-01T00:00:00Z") from error
    if time.tzinfo is None:
        raise WrongType(f"{where} has no time zone: {shown(value)}; append Z for UTC")
    return in_utc


def _times_at_once(values: Sequence[Any]) -> TimeArray | None:
    """Parse a column of whole seconds in UTC, thirty times as fast; None when there is anything else in it."""
    try:
        text = "".join(values).encode("ascii")
    except (TypeError, UnicodeEncodeError):
        return None
    if set(map(len, values)) != {len(_USUAL_TIME)} or text.translate(_DIGITS) != _USUAL_TIME * len(values):
        return None
    try:
        times = np.frombuffer(text, "S20").astype("S19").astype("datetime64[us]")
    except ValueError:
        return None  # the 30th of February
    return times if times.min() >= FIRST_YEAR else None


def parse_times(values: Sequence[Any], cell: Cell) -> TimeArray:
    """Parse a column of times into datetime64[us], UTC. Raises WrongType."""
    times = _times_at_once(values)
    if times is not None:
        return times
    one_by_one = [parse_time(value, cell(row)).replace(tzinfo=None) for row, value in enumerate(values)]
    return np.array(one_by_one, dtype="datetime64[us]")


def parse_numbers(values: Sequence[Any], cell: Cell) -> FloatArray:
    """Turn JSON numbers into float64 and null into NaN. Raises WrongType: a text or a boolean is not a number."""
    if not set(map(type, values)) <= _NUMBERS:
        row = next(i for i, value in enumerate(values) if type(value) not in _NUMBERS)
        raise WrongType(f"{cell(row)} must be a number, not {shown(values[row])}")
    return np.array(values, dtype=np.float64)


def check_names(names: Collection[str]) -> None:
    """Refuse names that cannot be columns, before any message repeats them. Raises UnknownColumns."""
    if len(names) > MAX_COLUMNS:
        raise UnknownColumns(f"{len(names)} columns are given; at most {MAX_COLUMNS} are looked at")
    bad = [name for name in names if not _COLUMN_NAME.fullmatch(name)]
    if bad:
        raise UnknownColumns(f"invalid column name {shown(bad[0])}; names have letters, digits and underscores")


def columns_of_rows(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Any]]:
    """Turn rows into columns; every row must have the columns of the first."""
    first = rows[0].keys() if rows else {}.keys()
    check_names(first)
    for i, row in enumerate(rows):
        if row.keys() != first:
            check_names(row.keys())
            missing, extra = sorted(first - row.keys()), sorted(row.keys() - first)
            kind = MissingColumns if missing else UnknownColumns
            raise kind(f"{key}[{i}] has other columns than {key}[0]: missing {missing[:5]}, extra {extra[:5]}", row=i)
    return {name: [row[name] for row in rows] for name in first}
