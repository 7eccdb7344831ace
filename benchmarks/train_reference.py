"""Train the bundle that every measured system serves: an LSTM of 128 with attention of 64 over 24×23 windows.

Run `python -m benchmarks.train_reference` to make `benchmarks/reference` anew; it is committed, so `make bench` needs
no training.
"""

import shutil
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from serve_app.cli.common import bars_of, git_commit
from serve_app.training.build import Provenance, build_bundle
from serve_app.training.data import known_biases
from serve_app.training.export import ExportSettings, export_bundle, replay_of
from serve_app.training.presets import PRESETS
from serve_app.training.train import train
from serve_app.types import Precision, Runtime

REFERENCE = Path(__file__).parent / "reference"
SOURCE = "bokeh"
VERSION = "v0.1"
DIMENSIONS = {
    "asset_embedding_dim": 8,
    "attention_dim": 64,
    "dropout_rate": 0.4,
    "lstm_hidden_dim": 128,
    "lstm_num_layers": 1,
}


def main() -> None:
    """Train with the settings of v1.0 but for the network's size, and export for ONNX Runtime."""
    bars = bars_of(SOURCE)
    trained = train(replace(PRESETS["v1.0"], dimensions=DIMENSIONS), bars)
    now = datetime.now(UTC)
    provenance = Provenance(VERSION, now, git_commit(Path.cwd()), SOURCE, known_biases(SOURCE), None)
    with tempfile.TemporaryDirectory() as folder:
        source = build_bundle(trained, bars, provenance, Path(folder) / VERSION)
        settings = ExportSettings(VERSION, Runtime.ONNX, Precision.FP32, now)
        exported = export_bundle(source, settings, replay_of(source, bars, SOURCE), Path(folder) / "out" / VERSION)
        shutil.rmtree(REFERENCE, ignore_errors=True)
        shutil.copytree(exported.path, REFERENCE)
    print(f"{REFERENCE}: {exported.digest}")


if __name__ == "__main__":
    main()
