"""The command `signal`."""

from pathlib import Path

import click

from serve_app.cli.common import BUNDLE, DATA_HELP, bars_of, pipeline_of


@click.command()
@click.option("--symbol", required=True)
@click.option("--data", required=True, help=DATA_HELP)
@BUNDLE
@click.option("--position", type=click.Choice(["FLAT", "LONG"]), default="FLAT", show_default=True)
@click.option("--held", type=click.FloatRange(0), help="How long, in the bundle's holding unit; needed when LONG.")
@click.option("--explain", is_flag=True, help="Show bars → features → probability against threshold → action.")
def signal(symbol: str, data: str, path: Path, position: str, held: float | None, explain: bool) -> None:
    """Decide on the latest bar of a symbol, in this process, with the code that serves."""
    import asyncio  # noqa: PLC0415

    from serve_app.explain import decide, explanation, request_of  # noqa: PLC0415

    bars = bars_of(data)
    if symbol not in bars:
        raise click.ClickException(f"{data} has no {symbol}; it has {', '.join(sorted(bars))}")
    pipeline = pipeline_of(path)
    steps = asyncio.run(decide(pipeline, request_of(pipeline.bundle, symbol, bars[symbol], position, held)))
    click.echo(explanation(pipeline, steps) if explain else f"{steps.action} {symbol} {steps.probability:.6f}")
