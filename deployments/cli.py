"""The `signalgraph` command. Nothing heavy is imported before a command runs: `--help` answers at once."""

import importlib
from typing import Any

import click

from serve_app.errors import ServeAppError

COMMANDS = {
    "up": ("deployments.process_commands:up", "Run a graph until Ctrl-C."),
    "down": ("deployments.process_commands:down", "Stop a running graph and all its processes."),
    "status": ("deployments.process_commands:status", "Show the running graphs: ready or why not."),
    "profile": ("deployments.process_commands:profile", "Print Ray's high-throughput flags, for `ray start`."),
    "demo": ("deployments.demo:demo", "Run the A/B graph and replay real bars through it."),
    "signal": ("serve_app.cli.signals:signal", "Decide on the latest bar of a symbol, without a server."),
    "train": ("serve_app.cli.train:train", "Train a model and write it as a bundle."),
    "models": ("serve_app.cli.models:models", "List, promote and roll back versions; their history."),
    "release": ("serve_app.cli.release:release", "Split symbols, promote and roll back on a running graph."),
    "outcomes": ("serve_app.cli.outcomes:outcomes", "Say what came of decisions, by later bars."),
    "experiment": ("serve_app.cli.experiment:experiment", "Is a candidate better, by what really happened?"),
    "journal": ("serve_app.cli.journal:journal", "Export decisions, and forget old ones."),
    "bundle": ("serve_app.cli.bundle:bundle", "Import and verify bundles."),
    "audit": ("serve_app.cli.examine:audit", "Hold what serving computes against whole histories."),
    "doctor": ("serve_app.cli.examine:doctor", "Examine a bundle: what is wrong, and what to do."),
    "preflight": ("serve_app.cli.preflight:preflight", "Go through the checklist before a deployment."),
    "init": ("serve_app.cli.init:init", "Start a folder for a model of your own."),
    "config": ("deployments.config_commands:config", "Check configuration files."),
}
"""Name → where the click command is (`module:attribute`), and its line in `signalgraph --help`."""


class LazyGroup(click.Group):
    """A group that imports a command when it is called, not when it is listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        """Return the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours is a message and exit code 1, not a traceback."""
        try:
            return super().invoke(ctx)
        except ServeAppError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="signalgraph")
def main() -> None:
    """SignalGraph: trading-signal neural networks, served as a Ray Serve graph."""


if __name__ == "__main__":
    main()
