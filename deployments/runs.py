"""What is known of the graphs that `signalgraph up` runs: one small file each, by HTTP port."""

import dataclasses
import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from deployments.ports import Ports
from serve_app.errors import ConfigError

_CLOCK_S = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One graph, from the decision to start it until its last process has ended."""

    run_id: str
    pid: int
    """Of the `signalgraph up` that watches over it."""
    born: float
    """When that process started, since the system gives a pid to another one some day."""
    since: str
    host: str
    ports: Ports
    config: str
    run_dir: Path
    fast: bool
    prefix: str = ""
    """Of the paths of the API, if it is not at the root."""
    dashboard: str | None = None
    """Address of Ray's dashboard, once it is known."""

    @property
    def url(self) -> str:
        """Where to call the API from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 (compared only)
        return f"http://{host}:{self.ports.http}{self.prefix}"

    @property
    def log(self) -> Path:
        """All that `serve run` printed."""
        return self.run_dir / "serve.log"

    @property
    def discovery(self) -> Path:
        """What Prometheus scrapes (`file_sd_configs`), written by Ray."""
        return self.run_dir / "ray" / "prom_metrics_service_discovery.json"

    @property
    def watched(self) -> bool:
        """Whether its `signalgraph up` still lives; if not, its processes are orphans."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.born) < _CLOCK_S
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def save(self, state_dir: Path) -> None:
        """Write, or overwrite, the file of this run; readers never see half of it."""
        path = state_dir / f"{self.ports.http}.json"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(dataclasses.asdict(self), default=str, indent=1))
        draft.replace(path)

    def forget(self, state_dir: Path) -> None:
        """Remove the file of this run."""
        (state_dir / f"{self.ports.http}.json").unlink(missing_ok=True)


def state_dir(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder of the state files."""
    given = environ.get("SIGNALGRAPH_STATE_DIR")
    return Path(given) if given else home / ".signalgraph" / "run"


def known(folder: Path, port: int | None = None) -> list[Run]:
    """Return the runs in this folder, by port; with `port` only that one."""
    found = (_load(path) for path in sorted(folder.glob("*.json")))
    return [run for run in found if run and port in (None, run.ports.http)]


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold this while ports are chosen, so that two graphs started at once do not choose the same."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _load(path: Path) -> Run | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:  # it stopped just now
        return None
    except ValueError as error:
        raise ConfigError(f"{path} is not a state file ({error}); delete it") from error
    try:
        return Run(**{**found, "ports": Ports(**found["ports"]), "run_dir": Path(found["run_dir"])})
    except (TypeError, KeyError) as error:
        raise ConfigError(f"{path} is not a state file of this version ({error}); delete it") from error
