"""The commands `bundle …`."""

from pathlib import Path

import click

from serve_app.cli.bundle_export import export, runtimes
from serve_app.cli.bundle_import import import_
from serve_app.cli.bundle_publish import publish
from serve_app.cli.bundle_reference import reference
from serve_app.cli.common import FOLDER, pipeline_of


@click.group()
def bundle() -> None:
    """Make, convert, publish and verify bundles."""


bundle.add_command(import_)
bundle.add_command(export)
bundle.add_command(reference)
bundle.add_command(runtimes)
bundle.add_command(publish)


@bundle.command()
@click.argument("path", type=FOLDER)
def verify(path: Path) -> None:
    """Check every file of a bundle against its manifest, and that its golden cases are reproduced here."""
    import asyncio  # noqa: PLC0415

    from serve_app.parity import check_golden  # noqa: PLC0415

    pipeline = pipeline_of(path)
    asyncio.run(check_golden(pipeline))
    bundle, config = pipeline.bundle, pipeline.bundle.config
    click.echo(f"{path}: {bundle.version} {config.architecture}, {bundle.digest}")
    needs = f"needs {config.bars_needed} bars" if config.bars_needed else "takes the `features` form only"
    click.echo(f"every file is as built; {len(bundle.golden)} golden cases reproduced; {needs}")
