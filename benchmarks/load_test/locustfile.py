"""The users, for Locust: each asks for a signal as soon as its last is there.

`make load-test` runs it. With Locust's own page instead, against a graph that runs:
`locust -f benchmarks/load_test/locustfile.py --host http://127.0.0.1:8000 --bodies FILE --seconds FILE`.
"""

import itertools
import time
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, LoadTestShape, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from benchmarks.load_test.answers import Tally, read_answer
from benchmarks.load_test.ramp import Ramp

HEADERS = {"Content-Type": "application/json"}


class Recorder:
    """Writes a line every second; the file is what the rest of the load test reads."""

    tally: Tally

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def start(self, **_: Any) -> None:
        """Begin with the test."""
        self.tally = Tally(time.time())
        self._writing = gevent.spawn(self._write_forever)

    def stop(self, **_: Any) -> None:
        """Write what is left; all users have gone."""
        self._writing.kill()
        self._write()

    def _write_forever(self) -> None:
        while True:
            gevent.sleep(1)
            self._write()

    def _write(self) -> None:
        closed, self.tally = self.tally, Tally(time.time())
        with self._environment.parsed_options.seconds.open("ab") as file:
            file.write(closed.close(self.tally.since, self._environment.runner.user_count).to_json())


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    ramp = Ramp()
    for name in ("ramp_up", "hold", "ramp_down", "cool"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=getattr(ramp, name), help="Seconds.")
    parser.add_argument("--bodies", type=Path, required=True, help="What to send: a JSON document a line.")
    parser.add_argument("--seconds", type=Path, required=True, help="Where to write what came, a line a second.")


@events.init.add_listener
def _init(environment: Environment, **_: Any) -> None:
    recorder = Recorder(environment)
    environment.events.test_start.add_listener(recorder.start)
    environment.events.test_stop.add_listener(recorder.stop)
    Trader.recorder = recorder
    Trader.bodies = itertools.cycle(environment.parsed_options.bodies.read_bytes().splitlines())


class Trader(FastHttpUser):
    """Asks in a closed loop, so that as many requests are out as there are users, on a fast machine and a slow one."""

    network_timeout = 30.0
    bodies: "itertools.cycle[bytes]"
    recorder: Recorder

    @task
    def signal(self) -> None:
        """Ask once, and look at the answer."""
        with self.client.post("/v1/signals", data=next(self.bodies), headers=HEADERS, catch_response=True) as response:
            answer = read_answer(response.status_code, response.content or b"")
            self.recorder.tally.add(answer, response.request_meta["response_time"])
            if answer.fault is not None:
                response.failure(answer.fault)
            else:
                response.success()


class Wave(LoadTestShape):
    """Follows the ramp; a step is taken at once."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there shall be now, and how many may come or go in a second."""
        options = self.runner.environment.parsed_options
        users = options.num_users or Ramp().users
        ramp = Ramp(users, options.ramp_up, options.hold, options.ramp_down, options.cool)
        now = ramp.users_at(self.get_run_time())
        return None if now is None else (now, users)
