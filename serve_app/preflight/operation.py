"""How it will be run: the configuration, what is watched, who may ask, and what must not be lying about."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from serve_app.config import AlertName, Auth, is_loopback
from serve_app.doctor import Verdict
from serve_app.model.bundle import CONFIG, METADATA
from serve_app.preflight.subject import Found, Subject

FORMATS: Mapping[str, str] = {
    ".safetensors": "safetensors",
    ".onnx": "ONNX",
    ".ts": "TorchScript, a program that is looked at before it is loaded",
    ".json": "JSON",
    ".npz": "arrays without objects",
}
UNKNOWN = "unknown"
SECRET_KEY = re.compile(r"(?i)(password|passwd|passphrase|secret|credential|token|(api|private|access)_?key)s?$")
SECRET_VALUE = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@")


def configuration(subject: Subject) -> Found:
    """The configuration is valid, and it is this bundle that it serves."""
    if isinstance(subject.read, Exception):
        raise subject.read
    deployment, bundle = subject.read, subject.bundle
    name = deployment.serves(bundle)
    if name is None:
        served = ", ".join(variant.bundle for variant in deployment.app.variants.configured().values())
        advice = f"promote {bundle.version}, or name its folder; the paths are relative to where the graph is started"
        return Found(Verdict.WARN, f"{deployment.path} serves {served}, which is not this bundle", advice)
    return Found(Verdict.OK, f"{deployment.path} serves it as {name}, topology {deployment.app.topology}")


def monitoring(subject: Subject) -> Found:
    """What the monitor keeps."""
    settings = subject.deployment.app.monitor
    kept = f"counts, actions, abstentions, and latency over the latest {settings.window} answers of each variant"
    sent = f"every {settings.push_interval_ms:g} ms, up to {settings.max_buffered} held back while it is away"
    return Found(Verdict.OK, f"GET /v1/monitor: {kept}; {sent}")


def alerting(subject: Subject) -> Found:
    """Somebody is called when something goes wrong, and features are held against training."""
    alerts = subject.deployment.app.monitor.alerts
    rules = [f"{name} {rule.limit:g}" for name, rule in alerts.rules().items()]
    rules += [AlertName.FEATURE_DRIFT] if alerts.feature_drift and subject.bundle.reference else []
    said = f"GET /v1/alerts: {', '.join(rules) or 'no rule'}"
    lacking = {
        "the bundle has no training reference, so drift of features is not seen": subject.bundle.reference is None,
        "nobody is called": alerts.webhook is None,
    }
    missing = [what for what, is_so in lacking.items() if is_so]
    if missing:
        advice = (
            "set monitor.alerts.webhook, or let Prometheus watch (configs/prometheus); `bundle reference` makes one"
        )
        return Found(Verdict.WARN, f"{said}; {' and '.join(missing)}", advice)
    return Found(Verdict.OK, f"{said}; the webhook is called")


def formats(subject: Subject) -> Found:
    """Nothing in it is unpickled."""
    files = sorted(subject.bundle.path.iterdir())
    said = [f"{path.name} ({FORMATS.get(path.suffix, UNKNOWN)})" for path in files]
    if any(path.suffix not in FORMATS for path in files):
        return Found(
            Verdict.WARN, f"not all formats are known here: {', '.join(said)}", "find out who reads them, and how"
        )
    return Found(Verdict.OK, f"nothing is unpickled: {', '.join(said)}")


def secrets(subject: Subject) -> Found:
    """Neither bundle nor configuration holds what must not be read by everybody."""
    documents: dict[str, Any] = {
        METADATA: subject.bundle.metadata,
        CONFIG: subject.bundle.config.model_dump(mode="json"),
    }
    if not isinstance(subject.read, Exception):
        documents[str(subject.read.path)] = subject.read.document
    found = [f"{name}: {place}" for name, document in documents.items() for place in _secrets_in(document)]
    if found:
        advice = "take it out, and change it: it has been written down; secrets belong into the environment"
        return Found(Verdict.FAIL, f"looks like a secret: {', '.join(found)}", advice)
    return Found(Verdict.OK, f"no key or value in {', '.join(documents)} looks like one")


def _secrets_in(document: Any, place: str = "", key: str = "") -> Iterator[str]:
    """Give the places, and never the values."""
    if isinstance(document, Mapping):
        for name, value in document.items():
            yield from _secrets_in(value, f"{place}.{name}".lstrip("."), str(name))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from _secrets_in(value, f"{place}[{number}]", key)
    elif isinstance(document, str) and document and (SECRET_KEY.search(key) or SECRET_VALUE.search(document)):
        yield place


def exposure(subject: Subject) -> Found:
    """Who may ask, and how much."""
    deployment = subject.deployment
    router = deployment.app.router
    if router.auth is Auth.NONE and not is_loopback(deployment.host):
        finding = f"listens on {deployment.host} and router.auth is none: anybody may ask"
        return Found(Verdict.FAIL, finding, "set router.auth to api_keys, or http_options.host to 127.0.0.1")
    who = f"listens on {deployment.host}, router.auth is {router.auth}"
    limits = (
        f"{router.max_body_bytes / 2**20:g} MiB, {router.max_bars} bars, {router.max_batch_requests} requests a call"
    )
    return Found(Verdict.OK, f"{who}; takes at most {limits}")
