"""What Ray Serve and the graph itself say of their state, over HTTP."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

READY_PATH = "/v2/health/ready"
_TIMEOUT_S = 5.0
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_FAILED = "DEPLOY_FAILED"


@dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One deployment of an application, as Serve's controller sees it."""

    name: str
    status: str
    message: str
    running: int
    target: int


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """One Serve application."""

    name: str
    status: str
    message: str
    deployments: tuple[DeploymentStatus, ...]

    @property
    def running(self) -> bool:
        """Whether all of its deployments serve."""
        return self.status == "RUNNING"

    @property
    def failed(self) -> bool:
        """Whether Serve has given up on it."""
        return self.status == _FAILED

    @property
    def trouble(self) -> str | None:
        """The error that keeps it from running, without Ray's frames; Serve may still be trying again."""
        return f"{self.name}: {essence(self.complaint)}" if self.complaint and not self.running else None

    @property
    def complaint(self) -> str:
        """The first message of a deployment, else of the application itself, with all frames."""
        messages = [*(deployment.message for deployment in self.deployments), self.message]
        return next(filter(None, messages), "")


def applications(dashboard: str, token: str | None) -> tuple[ApplicationStatus, ...]:
    """Ask Ray's dashboard for all applications; none while it cannot be reached."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx2.Client(trust_env=False, timeout=_TIMEOUT_S) as client:
            answer = client.get(f"{dashboard}/api/serve/applications/", headers=headers)
            answer.raise_for_status()
    except httpx2.HTTPError:
        return ()
    return tuple(_applications(answer.json()))


def unready(url: str) -> str | None:
    """Return why the graph at this address is not ready; None when it is."""
    try:
        with httpx2.Client(trust_env=False, timeout=_TIMEOUT_S) as client:
            answer = client.get(url + READY_PATH)
    except httpx2.HTTPError as error:
        return f"no answer at {url}: {error or type(error).__name__}"
    return None if answer.status_code == 200 else f"HTTP {answer.status_code}: {answer.text.strip()}"


def token(environ: Mapping[str, str], home: Path) -> str | None:
    """Return the token that Ray's dashboard wants, from the places where Ray itself looks."""
    if value := environ.get("RAY_AUTH_TOKEN"):
        return value
    path = Path(environ.get("RAY_AUTH_TOKEN_PATH") or home / ".ray" / "auth_token")
    return path.read_text().strip() if path.is_file() else None


def essence(message: str) -> str:
    """Return the end of a traceback: the exception and its message, without the frames above it."""
    lines = uncoloured(message).strip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  ")]
    last = frames[-1] if frames else -1
    return "\n".join(lines[last + 1 :] or lines[-1:])


def uncoloured(text: str) -> str:
    """Return the text without terminal colours."""
    return _ANSI.sub("", text)


def _applications(document: dict[str, Any]) -> Iterator[ApplicationStatus]:
    for name, found in document.get("applications", {}).items():
        deployments = tuple(_deployment(one) for one in found.get("deployments", {}).values())
        yield ApplicationStatus(name, found["status"], found.get("message", ""), deployments)


def _deployment(found: dict[str, Any]) -> DeploymentStatus:
    running = sum(replica["state"] == "RUNNING" for replica in found.get("replicas", []))
    target = found.get("target_num_replicas") or 0
    return DeploymentStatus(found["name"], found["status"], found.get("message", ""), running, target)
