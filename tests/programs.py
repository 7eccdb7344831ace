"""Programs that tests start, and the packages of Debian that bring them.

Where one is missing, the tests that need it skip and say so at the end of the run. CI is to have all of them: there,
`python -m tests.programs` installs what is missing.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = {
    "initdb": "postgresql",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
    "npm": "npm",
}
"""Program → package."""
_PATIENCE = ("Acquire::Retries=1", "Acquire::http::Timeout=20", "DPkg::Lock::Timeout=60")
_APT_GET = ["apt-get", "-q", *(f"-o{option}" for option in _PATIENCE)]
_UPDATE = [*_APT_GET, "update", "--error-on=any"]
_INSTALL = [*_APT_GET, "install", "-y", "--no-install-recommends"]


def find(program: str) -> Path | None:
    """Return where a program is, or None. Debian keeps PostgreSQL's out of the path: the newest counts."""
    versions = Path("/usr/lib/postgresql").glob(f"*/bin/{program}")
    newest = sorted(versions, key=lambda path: int(path.parts[-3]), reverse=True)
    if newest:
        return newest[0]
    found = shutil.which(program)
    return Path(found) if found else None


def needed(program: str) -> Path:
    """Return where a program is; skip where it is not."""
    found = find(program)
    if found is None:
        pytest.skip(f"needs {program}: apt-get install {PACKAGES[program]}")
    return found


def install() -> None:
    """Install what is missing where `CI` is set; say which tests are skipped where it still is."""
    wanted = sorted({package for program, package in PACKAGES.items() if find(program) is None})
    if wanted and os.environ.get("CI"):
        _apt_get(wanted)
    missing = sorted(program for program in PACKAGES if find(program) is None)
    if missing:
        print(f"tests that need {', '.join(missing)} are skipped; they come with: apt-get install {' '.join(wanted)}")


def _apt_get(packages: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (_UPDATE, [*_INSTALL, *packages]):
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
        # Nobody but root may, and not every machine has Debian's registry in reach.
        print(f"nothing is installed: {error}")


if __name__ == "__main__":
    install()
