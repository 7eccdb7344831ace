"""What the files of one model say differently: told, never believed."""

from collections.abc import Mapping

from pydantic import JsonValue

from serve_app.errors import ConfigError
from serve_app.model.architectures import canonical_name
from serve_app.model.bundle import Dimension
from serve_app.model.foreign.scalers import ScalerNumbers


def config_differences(
    architecture: str, dimensions: Mapping[str, Dimension], config: Mapping[str, JsonValue]
) -> list[str]:
    """Say where the checkpoint's configuration contradicts the weights. `lookback_window` has been spoken of."""
    said = config.get("model_type", config.get("architecture"))
    differences = []
    if isinstance(said, str) and not _same_architecture(said, architecture):
        differences.append(f"the checkpoint's config says the model is {said}; the weights are those of {architecture}")
    for name, value in dimensions.items():
        if name not in {"lookback_window", "use_pooling"}:
            differences += unlike(name, config, value)
    return differences


def _same_architecture(said: str, architecture: str) -> bool:
    try:
        return canonical_name(said) == architecture
    except ConfigError:
        return False


def unlike(name: str, config: Mapping[str, JsonValue], value: object, whose: str = "the weights") -> list[str]:
    """Say that the checkpoint's configuration has another value than the one that is used."""
    if name not in config or config[name] == value:
        return []
    return [f"the checkpoint's config says {name} is {config[name]}; {value} is used, as {whose} say"]


def name_differences(numbers: ScalerNumbers, feature_list: tuple[str, ...]) -> list[str]:
    """Say that the scaler remembers other names; renaming them to ours is how a known alias is mapped."""
    if numbers.names is None or numbers.names == list(feature_list):
        return []
    pairs = zip(numbers.names, feature_list, strict=False)
    first = next((pair for pair in pairs if pair[0] != pair[1]), (len(numbers.names), len(feature_list)))
    return [
        f"the scaler was fitted on other names than the feature list gives: {first[0]!r} where it says {first[1]!r}"
    ]
