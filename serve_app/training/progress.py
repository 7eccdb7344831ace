"""A progress bar for whoever trains at a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from serve_app.training.fit import EpochReport
from serve_app.training.fit import Progress as Report


@contextmanager
def progress_bar(description: str, console: Console) -> Iterator[Report]:
    """Show epochs and both losses while the block runs; early stopping leaves the bar where it stopped."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[losses]}"), console=console) as bar:
        task = bar.add_task(description, total=None, losses="")

        def show(report: EpochReport, /) -> None:
            losses = f"train {report.train_loss:.4f}  validation {report.validation_loss:.4f}"
            bar.update(task, completed=report.epoch, total=report.epochs, losses=losses)

        yield show
