"""What is to be deployed: our settings out of a Serve config, and what they say of this bundle."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from serve_app.config import AppConfig, parse_section
from serve_app.errors import ConfigError
from serve_app.model import Bundle
from serve_app.types import VariantName

BUILDER = "deployments.graph:build_app"
EVERY_INTERFACE = "0.0.0.0"  # noqa: S104  where Serve listens when a configuration does not say


@dataclass(frozen=True, slots=True)
class Deployment:
    """A Serve config with one application of ours."""

    path: Path
    document: dict[str, Any]
    app: AppConfig
    host: str

    def serves(self, bundle: Bundle) -> VariantName | None:
        """Return as what the configuration serves a bundle, if it does. Its folders are relative to where we are."""
        variants = self.app.variants.configured()
        return next((name for name, v in variants.items() if Path(v.bundle).resolve() == bundle.path), None)


def read_deployment(path: Path) -> Deployment:
    """Read a Serve config. Raises ConfigError; what is wrong in Serve's own sections is for `config check` to say."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    ours = [application for application in _applications(document) if application.get("import_path") == BUILDER]
    if len(ours) != 1:
        raise ConfigError(f"{path} has {len(ours)} applications with import_path {BUILDER}; name exactly one")
    app = parse_section(AppConfig, ours[0].get("args") or {}, f"{path}: args")
    http = document.get("http_options")
    host = http.get("host", EVERY_INTERFACE) if isinstance(http, dict) else EVERY_INTERFACE
    return Deployment(path, document, app, str(host))


def _applications(document: Any) -> list[dict[str, Any]]:
    listed = document.get("applications") if isinstance(document, dict) else None
    return [application for application in listed if isinstance(application, dict)] if isinstance(listed, list) else []
