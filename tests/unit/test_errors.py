import pickle
import re
from collections.abc import Iterator

import pytest

from serve_app import errors
from serve_app.errors import ServeAppError


def descendants(kind: type[ServeAppError]) -> Iterator[type[ServeAppError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from descendants(child)


EVERY = list(descendants(ServeAppError))
LINE = re.compile(r"^(?P<indent> *)[*+-] (?P<name>\w+)\b(?P<rest>.*)$", re.MULTILINE)
TREE = {match["name"]: match for match in LINE.finditer(errors.__doc__ or "")}


def ids(kind: type[ServeAppError]) -> str:
    return kind.__name__


every_error = pytest.mark.parametrize("kind", EVERY, ids=ids)


def test_the_tree_in_the_docstring_has_every_error_and_no_other() -> None:
    assert list(TREE) == [kind.__name__ for kind in EVERY]


@every_error
def test_an_error_stands_below_its_parent_in_the_docstring(kind: type[ServeAppError]) -> None:
    depth = len(TREE[kind.__name__]["indent"]) // 2
    assert depth == len(kind.__mro__) - len(ServeAppError.__mro__)


@every_error
def test_the_docstring_names_the_code_of_an_error(kind: type[ServeAppError]) -> None:
    own_code = vars(kind).get("code")
    assert own_code is None or own_code in re.split(r"[\s:;]+", TREE[kind.__name__]["rest"])


@every_error
def test_the_docstring_names_the_status_where_it_is_not_the_parents(kind: type[ServeAppError]) -> None:
    if "status_code" in vars(kind):
        assert str(kind.status_code) in TREE[kind.__name__]["rest"].split()


@every_error
def test_an_error_survives_pickling_with_message_and_detail(kind: type[ServeAppError]) -> None:
    error = kind("what is wrong; how to mend it", row=3, known=["AAPL"])
    error.detail["fallback_action"] = "SELL"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301
        assert type(copy) is kind
        assert str(copy) == "what is wrong; how to mend it"
        assert copy.detail == {"row": 3, "known": ["AAPL"], "fallback_action": "SELL"}


@every_error
def test_every_error_says_what_it_is(kind: type[ServeAppError]) -> None:
    assert kind.__doc__
    assert re.fullmatch(r"[a-z_]+", kind.code)
    assert kind.status_code in {400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503}


def test_two_errors_share_no_detail() -> None:
    ServeAppError("one").detail["x"] = 1
    assert ServeAppError("two").detail == {}


def test_unusable_requests_have_codes_of_their_own() -> None:
    unusable = list(descendants(errors.UnusableRequest))
    assert len({kind.code for kind in unusable}) == len(unusable)
    assert {kind.status_code for kind in unusable} == {422}
