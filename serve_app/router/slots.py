"""The two places for models, where each is an application of its own."""

from collections.abc import Iterable

from serve_app.types import VariantName, other_of


def slots(pairs: Iterable[tuple[str, str | None]]) -> dict[str, VariantName]:
    """Return which of the two places for models each bundle lives in, given production and candidate of each epoch.

    Production never moves; a candidate goes where production is not. Places are named by what they held first.
    """
    held: dict[str, VariantName] = {}
    for production, candidate in pairs:
        place = held.setdefault(production, VariantName.PRODUCTION)
        if candidate not in (None, production) and held.get(candidate, place) is place:
            held[candidate] = other_of(place)
    return held
