"""All that can be known to be wrong with a configuration before anything starts.

Serve's own sections are held against Serve's schemas (which Serve does not do), ours against `serve_app.config`, and
both against each other. Run as a module it names every fault and exits with 1.
"""

import ipaddress
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deployments.schema_check import faults as schema_faults
from serve_app.config import AppConfig, Auth, ModelAppConfig, Section, Topology, parse_section
from serve_app.errors import ConfigError
from serve_app.types import VariantName

_BUILDERS: Mapping[str, type[Section]] = {
    "deployments.graph:build_app": AppConfig,
    "deployments.graph:build_model": ModelAppConfig,
}


def faults(document: dict[str, Any]) -> list[str]:
    """Return one line for each fault of a configuration file's content."""
    found = schema_faults(document)
    applications = document.get("applications") or []
    sections: list[Section] = []
    for number, application in enumerate(applications):
        try:
            sections.extend(_section(application, f"applications[{number}].args"))
        except ConfigError as error:
            found.extend(str(error).split("; "))
    models = {section.variant: section for section in sections if isinstance(section, ModelAppConfig)}
    for app in (section for section in sections if isinstance(section, AppConfig)):
        found.extend(_exposure(app, document.get("http_options") or {}))
        found.extend(_models(app, models))
    return found


def _section(application: Mapping[str, Any], where: str) -> Iterator[Section]:
    builder = _BUILDERS.get(str(application.get("import_path")))
    if builder is not None:
        yield parse_section(builder, application.get("args") or {}, where)


def _exposure(app: AppConfig, http: Mapping[str, Any]) -> Iterator[str]:
    host = str(http.get("host", "127.0.0.1"))
    if app.router.auth is Auth.NONE and host != "localhost" and not ipaddress.ip_address(host).is_loopback:
        yield f"http_options.host is {host} and router.auth is none: anybody may ask; set router.auth to api_keys"


def _models(app: AppConfig, models: Mapping[VariantName, ModelAppConfig]) -> Iterator[str]:
    """Every variant needs an application with its model, on the same bundle, unless the router holds the models."""
    if app.topology is Topology.FUSED:
        return
    for name, variant in app.variants.configured().items():
        model = models.get(name)
        if model is None:
            yield f"variants.{name}: no application builds its model (deployments.graph:build_model, variant: {name})"
        elif model.bundle != variant.bundle:
            yield f"variants.{name}.bundle is {variant.bundle}, its model application's is {model.bundle}"


def faults_of_file(path: Path) -> list[str]:
    """Return the faults of a configuration file, one line each."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        return [f"it cannot be read: {error}"]
    if not isinstance(document, dict) or "applications" not in document:
        return ["it is not a Serve config: it has no `applications`"]
    return faults(document)


def main(paths: Sequence[str]) -> int:
    """Print the faults of these files; return 1 if there are any."""
    found = [f"{path}: {line}" for path in paths for line in faults_of_file(Path(path))]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
