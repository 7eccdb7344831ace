"""Everything that is measured on the same request: our peers, ourselves, and the ceilings of the platform."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from benchmarks.closed_loop import Load
from benchmarks.process import free_port, post, serving
from benchmarks.workload import Question, questions, wrong
from serve_app.documentation import bars_as_columns

CONFIGS = Path(__file__).parent / "configs"
_UP = ("{python}", "-m", "deployments.cli", "up")


class WrongAnswer(Exception):
    """A system whose speed does not count, since its probabilities are not the reference's."""


def features_body(question: Question) -> bytes:
    """Return a request with the features of the window, as JSON."""
    features = {"columns": list(question.columns), "rows": question.features.tolist()}
    return json.dumps({"symbol": question.symbol, "features": features}).encode()


def bars_body(question: Question) -> bytes:
    """Return a request with raw bars as columns, from which the server computes the features."""
    return json.dumps({"symbol": question.symbol, "bars": bars_as_columns(question.bars)}).encode()


def probability_of(answer: bytes) -> float:
    """Return what an answer says."""
    return float(json.loads(answer)["prediction_probability"])


@dataclass(frozen=True, slots=True)
class System:
    """One service and how it is asked."""

    name: str
    title: str
    command: Sequence[str]
    """Its arguments, in which {python}, {port} and {other} (one more free port) are filled in."""
    path: str = "/v1/signals"
    body: Callable[[Question], bytes] = features_body
    probability: Callable[[bytes], float] | None = probability_of
    """None: it computes nothing that could be wrong."""
    environment: Mapping[str, str] = field(default_factory=dict)
    python: Callable[[], Path] = lambda: Path(sys.executable)
    """Finds its interpreter, in a virtual environment made for it if need be."""

    @contextmanager
    def running(self, port: int) -> Iterator[Load]:
        """Serve until the block ends, and give the load to send. Raises DidNotStart, WrongAnswer."""
        url = f"http://127.0.0.1:{port}{self.path}"
        asked = questions()
        load = Load(url, [self.body(question) for question in asked])
        filled = partial(str.format, python=self.python(), port=port, other=free_port())
        command = [filled(part) for part in self.command]
        environment = {"OMP_NUM_THREADS": "1", **{name: filled(value) for name, value in self.environment.items()}}
        with serving(command, environment, lambda: self._answers(load)):
            self.check(load, asked)
            yield load
            self.check(load, asked)

    def _answers(self, load: Load) -> bool:
        try:
            answer = post(load.url, load.bodies[0])
            return self.probability is None or self.probability(answer) >= 0
        except (OSError, HTTPException, TypeError, LookupError, ValueError):  # not there, not ready, or an abstention
            return False

    def check(self, load: Load, asked: Sequence[Question]) -> None:
        """Ask every question once and compare. Raises WrongAnswer."""
        answers = [post(load.url, body) for body in load.bodies]
        if self.probability is None:
            return
        if fault := wrong([self._read(answer) for answer in answers], asked):
            raise WrongAnswer(f"{self.title}: {fault}")

    def _read(self, answer: bytes) -> float:
        assert self.probability is not None
        try:
            return self.probability(answer)
        except (TypeError, LookupError, ValueError) as error:
            raise WrongAnswer(f"{self.title} gave an answer without a probability: {answer!r}") from error


def _graph(name: str, title: str, **changes: Any) -> System:
    config = str(CONFIGS / f"{name}.yaml")
    return System(name, title, (*_UP, config, "--port", "{port}"), **changes)


FUSED = _graph("fused", "SignalGraph `fused`")
MODEL_REMOTE = _graph("model_remote", "SignalGraph `model_remote`")
STAGED = _graph("staged", "SignalGraph `staged`")
BARE_ECHO = _graph("echo_bare", "bare echo on the ingress", probability=None)
FASTAPI_ECHO = _graph("echo_fastapi", "echo behind FastAPI on the ingress", probability=None)
OURS = (FUSED, MODEL_REMOTE, STAGED)
CEILINGS = (BARE_ECHO, FASTAPI_ECHO)
