"""`python -m benchmarks.monitor`: what 10,000 observations a second cost the monitor, and the router that tells."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np

from benchmarks.command import write
from deployments.monitor import packed, unpacked
from serve_app.config import AlertsConfig
from serve_app.identity import decision_id
from serve_app.model import load_bundle
from serve_app.monitor import Gathering, Learnt, MonitorState, readings
from serve_app.types import Action, Decision, Status, VariantName

OUT = Path("benchmarks/results/monitor.json")
OBSERVATIONS = 10_000
"""Of one second, told in four pushes as a router does."""
PUSHES = 4
START = datetime(2026, 1, 1, tzinfo=UTC)


def decisions(second: int, symbols: list[str], digest: str, features: int) -> list[Decision]:
    """Return what one second brings: each symbol in turn, each with what its model saw."""
    rng = np.random.default_rng(second)
    seen = rng.normal(size=(OBSERVATIONS, features)).astype(np.float32)
    return [
        Decision(
            decision_id=decision_id(f"second {second}", i),
            symbol=symbols[i % len(symbols)],
            timestamp=START + timedelta(seconds=second),
            status=Status.OK,
            reason=None,
            probability=float(rng.random()),
            action=Action.HOLD,
            variant=VariantName.PRODUCTION,
            model_version="v1.0",
            bundle_digest=digest,
            epoch=1,
            batch_size=16,
            timings_ms={"queue": 0.1, "preprocess": 1.0, "model": 2.0, "strategy": 0.1},
            seen=seen[i],
        )
        for i in range(OBSERVATIONS)
    ]


class Clock:
    """Adds up what one kind of work takes."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def of(self, work: Callable[[], Any]) -> Any:
        """Do it."""
        started = time.perf_counter()
        done = work()
        self.seconds.append(time.perf_counter() - started)
        return done


def measure(seconds: int) -> dict[str, float]:
    """Return the medians, in ms for a second's observations."""
    bundle = load_bundle("models/production")
    state = MonitorState(10_000, np.random.default_rng(0))
    state.learn(bundle.digest, Learnt(bundle.version, bundle.reference))
    router = Gathering("a", 50_000, lambda: {"here": 0.5})
    clocks = {name: Clock() for name in ("tell_ms", "send_ms", "hear_ms")}
    tell, send, hear = clocks.values()
    look = Clock()
    symbols = [str(symbol) for symbol in bundle.reference.symbols] if bundle.reference else ["IBM"]
    for second in range(seconds):
        made = decisions(second, symbols, bundle.digest, len(bundle.config.feature_list))
        for part in range(PUSHES):
            router.record(made[part::PUSHES], 5.0)
            told = tell.of(router.take)
            sent = send.of(lambda told=told: packed(told))
            router.arrived()
            hear.of(lambda sent=sent: state.add(unpacked(sent)))
        look.of(lambda: list(readings(state, {}, AlertsConfig())))
    assert state.snapshot()["variants"]["production"]["requests"] == seconds * OBSERVATIONS
    return {
        **{name: round(PUSHES * 1e3 * median(clock.seconds), 1) for name, clock in clocks.items()},
        "look_ms": round(1e3 * median(look.seconds), 1),
    }


@click.command()
@click.option("--seconds", type=click.IntRange(min=1), default=30, show_default=True, help="Of observations.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(seconds: int, out: Path) -> None:
    """Tell the monitor of 10,000 decisions a second, and say how much of the second that takes, in which process."""
    found = measure(seconds)
    click.echo(
        "10,000 observations take a router {tell_ms} ms to gather and {send_ms} ms to send, and the monitor"
        " {hear_ms} ms to hear and {look_ms} ms to hold against its rules".format(**found)
    )
    write(out, observations=OBSERVATIONS, **found)


if __name__ == "__main__":
    main()
