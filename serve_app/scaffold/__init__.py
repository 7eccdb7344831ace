"""A folder to start a model of one's own from: it trains and serves as it stands."""

import re
from importlib import resources
from pathlib import Path

from serve_app.errors import ServeAppError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TEMPLATE = "template"
RENAMED = {"gitignore": ".gitignore"}
"""What would have an effect where the template lies, under its name there."""
PLACEHOLDER = "PROJECT_NAME"


class CannotCreate(ServeAppError):
    """The folder cannot be made; the message says why, and what to do. Nothing that was there has changed."""

    code = "cannot_create"


def create(parent: Path, name: str) -> list[Path]:
    """Fill the folder `name` in `parent` and return its files. Raises CannotCreate unless it is new, or empty."""
    if not NAME.fullmatch(name):
        raise CannotCreate(
            f"{name!r} is no plain folder name; use letters, digits, `-`, `_` and `.`, beginning with a letter or digit"
        )
    folder = parent / name
    try:
        folder.mkdir(exist_ok=True)
        if any(folder.iterdir()):
            raise CannotCreate(f"{folder} is there already and not empty; choose another name, or empty it first")
        return [_write(folder / RENAMED.get(file, file), text) for file, text in _template(name).items()]
    except FileExistsError as error:
        raise CannotCreate(f"{folder} is there already and not a folder; choose another name") from error
    except OSError as error:
        raise CannotCreate(f"{folder} cannot be written: {error}") from error


def _template(name: str) -> dict[str, str]:
    """File name → content, in alphabetical order."""
    entries = [entry for entry in (resources.files(__name__) / TEMPLATE).iterdir() if entry.is_file()]
    texts = {entry.name: entry.read_text("utf-8") for entry in entries}
    return {file: texts[file].replace(PLACEHOLDER, name) for file in sorted(texts)}


def _write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path
