"""The command `bundle import`: training artefacts of elsewhere become a bundle."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.common import MODELS_DIR, TRACKING_URI, bars_of, new_version

if TYPE_CHECKING:
    from serve_app.model import Bundle
    from serve_app.model.mlflow_registry import RunFiles
    from serve_app.training.imported import ImportSettings

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
DATA_HELP = "Real bars for the golden cases: `bokeh`, or a CSV or Parquet file; of symbols that the model knows."
SHARE = click.FloatRange(0, 1)
ABOVE_ZERO = click.FloatRange(0, min_open=True)
PARAMS: Mapping[str, str] = {
    "lookback_window": "lookback_window",
    "signal_threshold": "signal_threshold",
    "exit_threshold": "exit_threshold",
    "max_holding_period_hours": "max_holding_period",
}
"""Parameter of a run → the option that it stands for, where that is not given."""


@click.command("import")
@click.option("--model", type=FILE, help="Module, checkpoint, state dict, TorchScript or ONNX; or give --from.")
@click.option("--from", "uri", help="runs:/<id>/best_model, or models:/<name>@<alias>, of MLflow.")
@TRACKING_URI
@click.option("--scaler", type=FILE, help="joblib file or JSON {mean, scale} [default: in the checkpoint].")
@click.option("--asset-map", type=FILE, help="JSON, nested or flat [default: in the checkpoint].")
@click.option("--feature-list", type=FILE, help="JSON list, or one name a line [default: in the checkpoint].")
@click.option("--version", help="Version of the new bundle, such as v2.0; a published bundle has its own.")
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
def import_(uri: str | None, tracking_uri: str | None, **options: Any) -> None:
    """Turn a model that was trained elsewhere into a bundle, or fetch a bundle that was published.

    The weights decide what the network is; nothing is guessed. Pickles are refused without --trust-pickle.
    """
    from tempfile import TemporaryDirectory  # noqa: PLC0415

    if (uri is None) == (options["model"] is None):
        raise click.UsageError("give either --model or --from")
    if uri is None:
        _import_files(options)
        return
    from serve_app.model.mlflow_registry import fetch  # noqa: PLC0415

    with TemporaryDirectory(prefix="signalgraph-fetch-") as folder:
        files = fetch(uri, Path(folder), tracking_uri, _given())
        if files.bundle is not None:
            _keep(files.bundle, uri, options)
            if files.digest is None:
                click.echo(
                    "note: MLflow keeps no digest of it, so nothing but its own manifest vouches for it", err=True
                )
        else:
            _import_files(_with_run(options, files), files.run_id)


def _import_files(options: dict[str, Any], run_id: str | None = None) -> None:
    from serve_app.model.foreign.convert import Reading, Sources, read_foreign  # noqa: PLC0415
    from serve_app.training.imported import import_bundle  # noqa: PLC0415

    if options["version"] is None:
        raise click.UsageError("a model that was trained elsewhere needs a --version, such as v2.0")
    folder = new_version(options["models_dir"], options["version"])
    foreign = read_foreign(Sources(**_fields(Sources, options)), Reading(**_fields(Reading, options)))
    settings = replace(_settings(options), mlflow_run_id=run_id)
    _report(import_bundle(foreign, settings, bars_of(options["data"]), options["data"], folder))


def _with_run(options: Mapping[str, Any], files: "RunFiles") -> dict[str, Any]:
    """Fill in what the run knows and the command line does not say: files, and parameters."""
    assert files.sources is not None  # noqa: S101  else it is a bundle
    sources = {role: path for role, path in asdict(files.sources).items() if path and role not in _given()}
    asked = [name for name in PARAMS if name in files.params and PARAMS[name] not in _given()]
    known = {PARAMS[name]: _param(files, name) for name in asked}
    if "max_holding_period" in known and options["holding_unit"] != "hours":
        raise click.UsageError(
            f"run {files.run_id} says how long to hold in hours; give --max-holding-period in {options['holding_unit']}"
        )
    return {**options, **sources, **known}


def _param(files: "RunFiles", name: str) -> Any:
    """Read a parameter of the run as the option that it stands for reads what is typed in."""
    context = click.get_current_context()
    option = next(option for option in context.command.params if option.name == PARAMS[name])
    try:
        return option.type_cast_value(context, files.params[name])
    except click.BadParameter as error:
        raise click.ClickException(
            f"{name} of run {files.run_id} is of no use: {error.message} Give {option.opts[0]}."
        ) from error


def _given() -> set[str]:
    """What was typed in, and is no default."""
    context = click.get_current_context()
    typed = click.core.ParameterSource.COMMANDLINE
    return {name for name in context.params if context.get_parameter_source(name) is typed}


def _keep(folder: Path, uri: str, options: Mapping[str, Any]) -> None:
    """Put a published bundle into the repository as it is."""
    from serve_app.model import load_bundle  # noqa: PLC0415
    from serve_app.model.repository import Repository  # noqa: PLC0415

    superfluous = _given() - {"uri", "tracking_uri", "models_dir", "version"}
    if superfluous:
        names = sorted(o.opts[0] for o in click.get_current_context().command.params if o.name in superfluous)
        raise click.UsageError(f"{uri} is a bundle, which never changes: leave out {', '.join(names)}")
    version = load_bundle(folder).version
    if options["version"] not in {None, version}:
        raise click.UsageError(f"{uri} is {version}, which is part of it; leave out --version {options['version']}")
    new_version(options["models_dir"], version)
    bundle = Repository(options["models_dir"]).add(folder)
    click.echo(f"{options['models_dir'] / version}: {bundle.digest}")
    click.echo(
        f"{bundle.version} as it was published; {len(bundle.golden)} golden cases, runs on {', '.join(bundle.runtimes)}"
    )


def _fields(kind: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in kind.__slots__ if name in options}


def _settings(options: Mapping[str, Any]) -> "ImportSettings":
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
    return ImportSettings(options["version"], datetime.now(UTC), thresholds, label, options["bar_interval_s"])


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
