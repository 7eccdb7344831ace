"""Train a model, write it as a bundle and put it into production in this folder: `python train.py`.

Everything here is yours to change. What must stay is the order: bars → train → bundle → promotion.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from serve_app.cli.common import git_commit
from serve_app.errors import ServeAppError
from serve_app.model import LabelDefinition
from serve_app.model.repository import VERSION, Repository
from serve_app.training.build import Provenance, build_bundle
from serve_app.training.data import known_biases, load_bars
from serve_app.training.fit import FitSettings
from serve_app.training.train import TrainSettings, train

HERE = Path(__file__).resolve().parent
MODELS = HERE / "models"

SETTINGS = TrainSettings(
    # mlp, lstm_attention, gru_attention or cnn_lstm. Small networks do as well as large ones on daily bars.
    architecture="gru_attention",
    dimensions={
        "asset_embedding_dim": 4,
        "gru_hidden_dim": 32,
        "gru_num_layers": 1,
        "attention_dim": 16,
        "dropout_rate": 0.4,
    },
    # 1 if the price rises by 4 % before it falls by 4 %, within 8 bars from the next open.
    label=LabelDefinition(profit_target=0.04, stop_loss=0.04, horizon_bars=8),
    # Rows of features that the model sees at once.
    lookback_window=24,
    # Training stops early when the validation loss no longer falls; the same seed gives the same weights.
    fit=FitSettings(epochs=12, learning_rate=5e-4, weight_decay=0.05, seed=7),
    # The threshold is chosen so that at least this share of the validation windows signals.
    min_coverage=0.05,
)


def main() -> None:
    """Train, write and promote one version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="bokeh", help="CSV or Parquet of your bars; bokeh: the built-in daily bars")
    parser.add_argument("--version", default="v1.0", help="of the new bundle, such as v1.1; one folder each")
    options = parser.parse_args()
    folder = MODELS / options.version
    if not VERSION.fullmatch(options.version):
        parser.error(f"--version {options.version}: versions are named like v1.0")
    if folder.exists():
        parser.error(f"{folder} is there already, and a bundle never changes; choose another --version")

    # timestamp, symbol, open, high, low, close, volume; by symbol, oldest bar first.
    bars = load_bars(options.data)

    # By time: 70 % to train on, 15 % to choose epoch and threshold on, 15 % to test on.
    trained = train(SETTINGS, bars, lambda epoch: print(f"epoch {epoch.epoch}: loss {epoch.validation_loss:.4f}"))
    for symbol, reason in trained.left_out.items():
        print(f"left out {symbol}: {reason}")

    # The bundle holds all that a decision depends on, and golden cases that serving must reproduce.
    now = datetime.now(UTC)
    commit = git_commit(HERE)
    origin = Provenance(options.version, now, commit, options.data, known_biases(options.data))
    bundle = build_bundle(trained, bars, origin, folder)
    print(json.dumps(bundle.metadata["performance_metrics"], indent=2))

    # models/production leads to it from now on; `signalgraph models rollback` takes that back.
    Repository(MODELS).promote(options.version, who="train.py", why=f"trained on {options.data}", now=now)
    print(f"models/production: {bundle.version}, {bundle.digest}")


if __name__ == "__main__":
    try:
        main()
    except ServeAppError as error:
        sys.exit(str(error))
