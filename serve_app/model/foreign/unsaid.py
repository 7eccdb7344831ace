"""What weights do not show: how many rows a window has, and whether a cnn_lstm pools."""

from collections.abc import Mapping

from pydantic import JsonValue

from serve_app.errors import BundleError, ConfigError
from serve_app.model.foreign.artefacts import Artefacts
from serve_app.model.foreign.differences import unlike
from serve_app.model.foreign.shapes import Shapes, step_width

USUAL_LOOKBACK = 24


def window_of(
    architecture: str, shapes: Shapes, listed: int, config: Mapping[str, JsonValue], asked: int | None
) -> tuple[int, int, list[str]]:
    """Return the number of features, the rows of a window, and what is to be said about them."""
    width = step_width(architecture, shapes)
    if architecture == "mlp":
        if width % listed:
            raise BundleError(f"the mlp takes {width} numbers, no whole number of rows of the {listed} listed features")
        if asked not in {None, width // listed}:
            raise ConfigError(
                f"--lookback says {asked} rows, but the mlp takes {width // listed} rows of {listed} features"
            )
        return listed, width // listed, unlike("lookback_window", config, width // listed)
    if width != listed:
        raise BundleError(
            f"the model takes {width} features, the feature list names {listed}: they do not belong together; list the"
            " features that the model was trained on, in their order"
        )
    said = config.get("lookback_window")
    if asked is not None:
        return (
            listed,
            asked,
            unlike("lookback_window", config, asked, "--lookback"),
        )
    if isinstance(said, int) and not isinstance(said, bool) and said > 0:
        return (
            listed,
            said,
            [f"the weights take windows of any length; lookback_window {said} is the checkpoint's word"],
        )
    return listed, USUAL_LOOKBACK, [f"nothing says how long a window is; lookback_window {USUAL_LOOKBACK} is assumed"]


def pooling_of(architecture: str, artefacts: Artefacts, asked: bool | None) -> tuple[bool, list[str]]:
    """Return whether a cnn_lstm pools, and on whose word; for the others it means nothing."""
    if architecture != "cnn_lstm":
        return False, []
    seen, said = artefacts.use_pooling, artefacts.config.get("use_pooling")
    if seen is not None:
        if asked not in {None, seen}:
            raise ConfigError(f"--{'' if asked else 'no-'}pooling, but the module does otherwise")
        return seen, []
    if asked is not None:
        return asked, unlike("use_pooling", artefacts.config, asked, "--pooling")
    if isinstance(said, bool):
        return said, [f"the weights do not show pooling; use_pooling {str(said).lower()} is the checkpoint's word"]
    raise ConfigError(
        "the weights of a cnn_lstm do not show whether it pools, and there is no use_pooling in the checkpoint's"
        " config; say --pooling or --no-pooling"
    )
