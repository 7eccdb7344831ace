"""The process in which foreign files are opened: `python -P -m serve_app.model.foreign.child FOLDER [--trust]`.

Prints one line when it is ready to open them, then writes its answer into the folder. What is in the files may do as
it likes from then on: nothing is read from this process but JSON and safetensors.
"""

import json
import os
import sys
from pathlib import Path

from safetensors.torch import save_file

from serve_app.errors import ServeAppError
from serve_app.model.foreign.artefacts import read_artefacts

MODEL, SCALER, ANSWER, WEIGHTS, READY = "model", "scaler", "answer.json", "weights.safetensors", b"ready\n"


def main(folder: Path, trust: bool) -> None:
    """Read the files of the folder and write what they hold, or why they are refused, next to them."""
    try:
        model, scaler = (path.read_bytes() if path.exists() else None for path in (folder / MODEL, folder / SCALER))
        artefacts, weights = read_artefacts(model, scaler, trust)
    except ServeAppError as error:
        answer = json.dumps({"refused": str(error)})
    else:
        save_file(weights, folder / WEIGHTS)
        answer = json.dumps({"artefacts": artefacts.model_dump(mode="json")})
    (folder / ANSWER).write_text(answer)


if __name__ == "__main__":
    os.write(sys.stdout.fileno(), READY)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())
    if "--trust" in sys.argv:
        # Where the classes of whole modules are. Last: a file there must not stand in for one of ours.
        sys.path.append(str(Path.cwd()))
    main(Path(sys.argv[1]), "--trust" in sys.argv)
