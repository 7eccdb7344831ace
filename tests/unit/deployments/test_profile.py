import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from deployments.ports import Ports
from deployments.processes import RUN_ID
from deployments.profile import Machine, environment, exports, take_turns

RUN_DIR = Path("/tmp/sg-abcdefgh")  # noqa: S108 (never created)
NODE_ID = "f" * 56
SERVE = "serve._private.constants"


def test_an_exported_setting_wins_over_a_default() -> None:
    base = {"RAY_SERVE_HAPROXY_NBTHREAD": "8", "OMP_NUM_THREADS": "4", "PATH": "/bin"}
    found = environment(base, Ports(8000), RUN_DIR, "id", haproxy=True)
    assert base.items() <= found.items()


def test_what_keeps_graphs_apart_does_not_give_way() -> None:
    base = {"RAY_ADDRESS": "auto", "RAY_TMPDIR": "/elsewhere", "RAY_SERVE_HAPROXY_STATS_PORT": "1", RUN_ID: "old"}
    found = environment(base, Ports(8000), RUN_DIR, "new", haproxy=True)
    assert found[RUN_ID] == "new"
    assert found["RAY_ADDRESS"] == "local"
    assert found["RAY_TMPDIR"] == str(RUN_DIR)
    assert found["RAY_SERVE_HAPROXY_STATS_PORT"] == "8404"


@pytest.mark.parametrize("haproxy", [True, False])
def test_replicas_do_not_yield_to_whatever_else_runs(haproxy: bool) -> None:
    assert environment({}, Ports(8000), RUN_DIR, "id", haproxy)["RAY_worker_niceness"] == "0"


@pytest.mark.parametrize("haproxy", [True, False])
def test_a_proxy_may_take_half_a_minute_to_start(haproxy: bool) -> None:
    found = environment({}, Ports(8000), RUN_DIR, "id", haproxy)
    understood = of_ray(found, f"{SERVE}.PROXY_READY_CHECK_TIMEOUT_S", f"{SERVE}.HTTP_PROXY_TIMEOUT")
    assert understood == [30, 60]  # of the second, which cannot be set, `serve run` gives up


@pytest.mark.parametrize("haproxy", [True, False])
def test_ray_looks_around_less_often(haproxy: bool) -> None:
    expected = {
        f"{SERVE}.CONTROL_LOOP_INTERVAL_S": 0.25,
        f"{SERVE}.RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": 1000,
        "dashboard.modules.reporter.reporter_consts.REPORTER_UPDATE_INTERVAL_MS": 15_000,
        "dashboard.consts.METRICS_RECORD_INTERVAL_S": 15,
        "_private.log_monitor.RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": 0,
        "_private.log_monitor.LOG_NAME_UPDATE_INTERVAL_S": 1,
    }
    assert of_ray(environment({}, Ports(8000), RUN_DIR, "id", haproxy), *expected) == list(expected.values())


def of_ray(environ: Mapping[str, str], *names: str) -> list[float]:
    """Return what Ray makes of an environment, in its own constants."""
    ask = "import json, pkgutil, sys; print(json.dumps([pkgutil.resolve_name(f'ray.{n}') for n in sys.argv[1:]]))"
    command = [sys.executable, "-c", ask, *names]
    told = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True, check=True)
    understood: list[float] = json.loads(told.stdout)
    return understood


def test_the_largest_usual_batch_is_one_message_between_stages() -> None:
    name, rows, floats = "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH", 256, 240 * 60
    assert int(environment({}, Ports(8000), RUN_DIR, "id", haproxy=True)[name]) > rows * floats * 8
    assert f"export {name}=" in exports(Machine())


def test_two_slots_share_no_port() -> None:
    def ports(slot: int) -> set[str]:
        found = environment({}, Ports(8000, slot), RUN_DIR, "id", haproxy=True)
        return {value for key, value in found.items() if key.endswith("_PORT")}

    assert len(ports(0)) == 8
    assert not ports(0) & ports(1)


def test_the_plain_profile_switches_exported_flags_off() -> None:
    found = environment({"RAY_SERVE_ENABLE_HA_PROXY": "1"}, Ports(8000), RUN_DIR, "id", haproxy=False)
    assert found["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    assert "RAY_SERVE_HAPROXY_RETRIES" not in found


def test_socket_paths_stay_below_the_limit_of_unix_sockets() -> None:
    found = environment({}, Ports(8000), RUN_DIR, "id", haproxy=True)
    socket = Path(found["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    assert len(str(socket.parent / NODE_ID / socket.name)) < 107


@pytest.mark.parametrize(
    ("files", "connections"), [(1_024, "369"), (20_000, "7960"), (1_048_576, "20000"), (sys.maxsize, "20000")]
)
def test_haproxy_takes_as_many_connections_as_there_are_files_for(files: int, connections: str) -> None:
    machine = Machine(cpus=8, files=files)
    found = environment({}, Ports(8000), RUN_DIR, "id", haproxy=True, machine=machine)
    assert found["RAY_SERVE_HAPROXY_MAXCONN"] == connections
    assert f"export RAY_SERVE_HAPROXY_MAXCONN={connections}\n" in exports(machine) + "\n"


def test_this_machine_is_the_default() -> None:
    assert Machine().files >= 1_024
    assert environment({}, Ports(8000), RUN_DIR, "id", haproxy=True) == environment(
        {}, Ports(8000), RUN_DIR, "id", haproxy=True, machine=Machine()
    )


IS_BATCH = "import os; print(os.sched_getscheduler(0) == os.SCHED_BATCH)"


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this policy")
def test_what_is_started_takes_turns() -> None:
    ask = [sys.executable, "-c", IS_BATCH]
    started = subprocess.run(ask, capture_output=True, text=True, check=True, preexec_fn=take_turns)
    assert started.stdout == "True\n"


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has this policy")
def test_what_somebody_has_chosen_stays() -> None:
    def idle() -> None:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        take_turns()

    ask = [sys.executable, "-c", "import os; print(os.sched_getscheduler(0) == os.SCHED_IDLE)"]
    started = subprocess.run(ask, capture_output=True, text=True, check=True, preexec_fn=idle)
    assert started.stdout == "True\n"


@pytest.mark.skipif(shutil.which("chrt") is None, reason="needs chrt, of util-linux")
def test_a_shell_that_took_the_profile_takes_turns_too() -> None:
    script = f"set -e\n{exports(Machine())}\n{shlex.join([sys.executable, '-c', IS_BATCH])}\necho $RAY_worker_niceness"
    started = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert started.stdout == "True\n0\n"


def test_a_shell_without_chrt_takes_the_rest() -> None:
    shell = shutil.which("bash")
    assert shell
    script = f"set -e\n{exports(Machine())}\necho $RAY_worker_niceness"
    started = subprocess.run([shell, "-c", script], capture_output=True, text=True, check=True, env={"PATH": ""})
    assert started.stdout == "0\n"
