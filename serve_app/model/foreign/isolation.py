"""The parent's side of the child process: files in, plain data out, and nothing left running."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors

import serve_app
from serve_app.config import Section
from serve_app.errors import BundleError
from serve_app.model.foreign.artefacts import Artefacts
from serve_app.model.foreign.child import ANSWER, MODEL, READY, SCALER, WEIGHTS
from serve_app.types import FloatArray


class _Answer(Section):
    refused: str | None = None
    artefacts: Artefacts | None = None


def read_isolated(
    model: bytes | None, scaler: bytes | None, trust: bool, time_limit_s: float
) -> tuple[Artefacts, dict[str, FloatArray]]:
    """Read a file of weights, and a scaler file that is a pickle, in a process of its own.

    Raises BundleError: refused there with the reason, past the time limit, or the process died.
    """
    with tempfile.TemporaryDirectory(prefix="signalgraph-import-") as temporary:
        folder = Path(temporary)
        for name, content in ((MODEL, model), (SCALER, scaler)):
            if content is not None:
                (folder / name).write_bytes(content)
        _run(folder, trust, time_limit_s)
        try:
            answer = _Answer.model_validate_json((folder / ANSWER).read_bytes())
            if answer.artefacts is None:
                raise BundleError(answer.refused or "the files were not read, and nothing says why")
            return answer.artefacts, load_tensors((folder / WEIGHTS).read_bytes())
        except (OSError, ValidationError, SafetensorError) as error:
            raise BundleError(f"the process that read the files left no usable answer: {error}") from error


def _run(folder: Path, trust: bool, time_limit_s: float) -> None:
    root = str(Path(serve_app.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable,
        "-P",
        "-m",
        "serve_app.model.foreign.child",
        str(folder),
        *(["--trust"] if trust else []),
    ]
    with (
        (folder / "stderr").open("w+b") as stderr,
        # A session of its own, so that what a pickle may start can be ended with it.
        subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        ) as process,
    ):
        try:
            # Up to here the child has run our imports only; the limit is for what is in the files.
            assert process.stdout is not None  # noqa: S101  it is a pipe
            process.stdout.read(len(READY))
            code = process.wait(time_limit_s)
        except subprocess.TimeoutExpired as error:
            raise BundleError(
                f"the files were not read within {time_limit_s:g} s; they may never end. Nothing was imported; a larger"
                " model needs a larger --time-limit"
            ) from error
        finally:
            _end(process)
        if code != 0:
            stderr.seek(0)
            last = stderr.read().decode(errors="replace").strip().splitlines()[-1:]
            raise BundleError(
                f"the process that read the files ended with {code}: {''.join(last) or 'it said nothing'}"
            )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the child and what it started, if anything of it still runs."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
