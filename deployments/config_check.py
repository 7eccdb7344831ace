"""All that can be known to be wrong with a configuration before anything starts.

Serve's own sections are held against Serve's schemas (which Serve does not do), ours against `serve_app.config`, and
both against each other. Run as a module, which `signalgraph up` does, it names every fault and what the environment
lacks, and exits with 1; `signalgraph config check` looks at the file alone, which may be for another machine.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import DeploymentSchema, ServeApplicationSchema, ServeDeploySchema

from deployments.keys import keys_of
from deployments.launch import GRAPH
from deployments.schema_check import faults as schema_faults
from deployments.stages import MODEL, model_application
from serve_app.config import (
    AppConfig,
    Auth,
    ModelAppConfig,
    ModelConfig,
    RouterTuning,
    Section,
    Topology,
    is_loopback,
    parse_section,
)
from serve_app.errors import BundleError, ConfigError
from serve_app.journal import from_here
from serve_app.model import load_bundle
from serve_app.model.predictors import chosen

_OURS = "deployments.graph:"
_BUILDERS: Mapping[str, type[Section]] = {GRAPH: AppConfig, f"{_OURS}build_model": ModelAppConfig}
ROUTER = "router"
_STAGES = {GRAPH: (ROUTER, "preprocess", "strategy"), f"{_OURS}build_model": (MODEL,)}


def faults(document: dict[str, Any], environment: Mapping[str, str] | None = None) -> list[str]:
    """Return one line for each fault of a configuration file's content.

    Where it is to start in an `environment`, what that lacks is a fault as well.
    """
    found = schema_faults(document)
    try:
        serve = ServeDeploySchema.model_validate(document)
    except ValidationError:
        return found  # Serve's own refusals are among what was found, and what follows needs a document of its form
    sections: dict[str, Section] = {}
    for number, application in enumerate(serve.applications):
        where = f"applications[{number}]"
        try:
            sections |= _section(application, where)
        except ConfigError as error:
            found.extend(str(error).split("; "))
        found.extend(_deployments(application, where))
    for name, section in sections.items():
        found.extend(_runtimes(name, section))
    for application in serve.applications:
        app = sections.get(application.name)
        if not isinstance(app, AppConfig):
            continue
        found.extend(_exposure(app, serve.http_options.host))
        found.extend(_bundles(app))
        found.extend(_models(app, sections))
        found.extend(_journal(app))
        if environment is not None:
            found.extend(_keys(app, environment, application.runtime_env.get("env_vars") or {}))
    return found


def _section(application: ServeApplicationSchema, where: str) -> dict[str, Section]:
    """Our settings of one application, by the application's name; none for an application that is not ours."""
    builder = _BUILDERS.get(application.import_path)
    if builder is not None:
        return {application.name: parse_section(builder, application.args, f"{where}.args")}
    if application.import_path.startswith(_OURS):
        raise ConfigError(f"{where}.import_path: {application.import_path} is none of {', '.join(_BUILDERS)}")
    return {}


def _deployments(application: ServeApplicationSchema, where: str) -> Iterator[str]:
    known = _STAGES.get(application.import_path)
    for number, deployment in enumerate(application.deployments):
        if known is not None and deployment.name not in known:
            yield f"{where}.deployments[{number}].name: {deployment.name} is none of {', '.join(known)}"
        if known is not None and "user_config" in deployment.model_fields_set:
            yield from _tuning(deployment, f"{where}.deployments[{number}].user_config")


def _tuning(deployment: DeploymentSchema, where: str) -> Iterator[str]:
    """Only the router changes while it serves."""
    if deployment.name != ROUTER:
        yield f"{where}: {deployment.name} takes none"
        return
    try:
        parse_section(RouterTuning, deployment.user_config or {}, where)
    except ConfigError as error:
        yield from str(error).split("; ")


def _exposure(app: AppConfig, host: str) -> Iterator[str]:
    if app.router.auth is Auth.NONE and not is_loopback(host):
        yield (
            f"http_options.host is {host} and router.auth is none: anybody may ask; set the host to 127.0.0.1,"
            " or router.auth to api_keys"
        )


def _keys(app: AppConfig, environment: Mapping[str, str], own: object) -> Iterator[str]:
    """What `own`, the variables of the application's `runtime_env`, and the environment have to give."""
    if not isinstance(own, dict) or not all(isinstance(value, str) for value in own.values()):
        yield "runtime_env.env_vars: must be names with texts; put numbers in quotes"
        return
    try:
        keys_of(app.router.auth, {**environment, **own})
    except ConfigError as error:
        yield str(error)


def _bundles(app: AppConfig) -> Iterator[str]:
    for name, variant in app.variants.configured().items():
        try:
            load_bundle(variant.bundle)
        except BundleError as error:
            yield f"variants.{name}.bundle: {error}"


def _journal(app: AppConfig) -> Iterator[str]:
    if app.journal is not None:
        try:
            from_here(app.journal.url)
        except ConfigError as error:
            yield f"journal.url: {error}"


def _runtimes(name: str, section: Section) -> Iterator[str]:
    """Every model needs the file of its runtime, and must have passed the gate. Lacking bundles are named elsewhere."""
    for path, model in _models_of(section):
        with suppress(BundleError):
            bundle = load_bundle(path)
            try:
                chosen(bundle, model)
            except ConfigError as error:
                yield f"{name}.args.model: {error}"


def _models_of(section: Section) -> list[tuple[str, ModelConfig]]:
    """The bundles that an application computes, and how."""
    if isinstance(section, ModelAppConfig):
        return [(section.bundle, section.model)]
    if isinstance(section, AppConfig) and section.topology is Topology.FUSED:
        return [(variant.bundle, section.model) for variant in section.variants.configured().values()]
    return []


def _models(app: AppConfig, sections: Mapping[str, Section]) -> Iterator[str]:
    """Every variant needs the application of its model, on the same bundle, unless the router holds the models."""
    if app.topology is Topology.FUSED:
        return
    for name, variant in app.variants.configured().items():
        model = sections.get(model_application(name))
        if not isinstance(model, ModelAppConfig) or model.variant is not name:
            yield (
                f"variants.{name}: no application builds its model; it needs one named {model_application(name)}"
                f" with import_path {_OURS}build_model and args.variant {name}"
            )
        elif model.bundle != variant.bundle:
            yield f"variants.{name}.bundle is {variant.bundle}, its model application's is {model.bundle}"


def faults_of_file(path: Path, environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the faults of a configuration file, one line each; see `faults`."""
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        return [f"it cannot be read: {error}"]
    if not isinstance(document, dict) or "applications" not in document:
        return ["it is not a Serve config: it has no `applications`"]
    return faults(document, environment)


def main(paths: Sequence[str]) -> int:
    """Print what keeps these files from starting in this environment; return 1 if anything does."""
    found = [f"{path}: {line}" for path in paths for line in faults_of_file(Path(path), os.environ)]
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
