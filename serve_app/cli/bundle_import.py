"""The command `bundle import`: training artefacts of elsewhere become a bundle."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.common import MODELS_DIR, bars_of, new_version

if TYPE_CHECKING:
    from serve_app.model import Bundle
    from serve_app.training.imported import ImportSettings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DATA_HELP = "Real bars for the golden cases: `bokeh`, or a CSV or Parquet file; of symbols that the model knows."
SHARE = click.FloatRange(0, 1)
ABOVE_ZERO = click.FloatRange(0, min_open=True)


@click.command("import")
@click.option("--model", required=True, type=FILE, help="Whole module, checkpoint with it or its state, or state dict.")
@click.option("--scaler", type=FILE, help="joblib file or JSON {mean, scale} [default: in the checkpoint].")
@click.option("--asset-map", type=FILE, help="JSON, nested or flat [default: in the checkpoint].")
@click.option("--feature-list", type=FILE, help="JSON list, or one name a line [default: in the checkpoint].")
@click.option("--version", required=True, help="Version of the new bundle, such as v2.0; one folder each.")
@MODELS_DIR
@click.option(
    "--trust-pickle", is_flag=True, help="Unpickle what must be: it RUNS the files' code, in a child process."
)
@click.option(
    "--time-limit", "time_limit_s", type=ABOVE_ZERO, default=60.0, show_default=True, help="Of that, seconds."
)
@click.option("--architecture", help="What you take it for; refused if the weights say otherwise.")
@click.option("--lookback", "lookback_window", type=click.IntRange(1), help="Rows of a window [default: see README].")
@click.option("--pooling/--no-pooling", "use_pooling", default=None, help="Of a cnn_lstm, where no file says.")
@click.option("--data", default="bokeh", show_default=True, help=DATA_HELP)
@click.option("--signal-threshold", type=SHARE, default=0.7, show_default=True, help="Buy from this probability on.")
@click.option("--exit-threshold", type=SHARE, help="Sell down from this probability [default: none].")
@click.option("--max-holding-period", type=ABOVE_ZERO, default=8.0, show_default=True, help="Sell after this long.")
@click.option("--holding-unit", type=click.Choice(["hours", "bars"]), default="hours", show_default=True)
@click.option("--bar-interval-s", type=ABOVE_ZERO, default=3600.0, show_default=True, help="Bar to bar, seconds.")
@click.option(
    "--profit-target", type=ABOVE_ZERO, default=0.05, show_default=True, help="Of the label it was trained on."
)
@click.option("--stop-loss", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.02, show_default=True)
@click.option("--label-entry", type=click.Choice(["close", "next_open"]), default="close", show_default=True)
@click.option("--horizon", "horizon_bars", type=click.IntRange(1), default=8, show_default=True, help="Bars, likewise.")
def import_(version: str, models_dir: Path, data: str, **options: Any) -> None:
    """Turn a model that was trained elsewhere into a bundle.

    The weights decide what the network is; nothing is guessed. Pickles are refused without --trust-pickle.
    """
    from serve_app.model.foreign.convert import Reading, Sources, read_foreign  # noqa: PLC0415
    from serve_app.training.imported import import_bundle  # noqa: PLC0415

    folder = new_version(models_dir, version)
    foreign = read_foreign(Sources(**_fields(Sources, options)), Reading(**_fields(Reading, options)))
    bundle = import_bundle(foreign, _settings(version, options), bars_of(data), data, folder)
    _report(bundle)


def _fields(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in kind.__slots__ if name in options}


def _settings(version: str, options: Mapping[str, Any]) -> "ImportSettings":
    from datetime import UTC, datetime  # noqa: PLC0415

    from serve_app.model import LabelDefinition  # noqa: PLC0415
    from serve_app.training.imported import ImportSettings  # noqa: PLC0415
    from serve_app.types import HoldingUnit, Thresholds  # noqa: PLC0415

    thresholds = Thresholds(
        signal_threshold=options["signal_threshold"],
        exit_threshold=options["exit_threshold"],
        max_holding_period=options["max_holding_period"],
        holding_unit=HoldingUnit(options["holding_unit"]),
    )
    label = LabelDefinition(
        profit_target=options["profit_target"],
        stop_loss=options["stop_loss"],
        horizon_bars=options["horizon_bars"],
        entry=options["label_entry"],
    )
    return ImportSettings(version, datetime.now(UTC), thresholds, label, options["bar_interval_s"])


def _report(bundle: "Bundle") -> None:
    from serve_app.training.imported import golden_notes  # noqa: PLC0415

    config, known = bundle.config, bundle.metadata["known_differences"]
    click.echo(f"{bundle.path}: {bundle.digest}")
    click.echo(
        f"{config.architecture} of {len(bundle.symbol_to_id)} symbols, windows of {config.lookback_window} rows;"
        f" {len(bundle.golden)} golden cases; buys from {config.strategy.signal_threshold:g}, holds for at most"
        f" {config.strategy.max_holding_period:g} {config.strategy.holding_unit}, bars of {config.bar_interval_s:g} s"
    )
    for role, how in bundle.metadata["imported"]["converted"].items():
        click.echo(f"{role}: {how}")
    for difference in [*known["files"], *golden_notes(bundle)]:
        click.echo(f"note: {difference}", err=True)
    if known["features"]:
        _warn_of_definitions(config.feature_set, known["features"])


def _warn_of_definitions(feature_set: str | None, differences: Mapping[str, str]) -> None:
    click.echo(
        f"WARNING: the features have the names and the order of {feature_set}, which is not to say its"
        " definitions. Unless the model was trained on it, probabilities from raw bars differ from training; those from"
        " the `features` form are exact. What differs from the feature code that such models mostly come from:",
        err=True,
    )
    for feature, how in differences.items():
        click.echo(f"  {feature}: {how}", err=True)
