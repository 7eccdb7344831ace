import subprocess
import sys

from click.testing import CliRunner

from deployments import cli

LISTING = """
import sys
from deployments.cli import main
main(["--help"], standalone_mode=False)
print(sorted({"ray", "torch", "pandas", "rich", "psutil"} & set(sys.modules)))
"""


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    said = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True, check=True).stdout
    assert said.rstrip().endswith("[]")
    assert all(f"  {name} " in said for name in cli.COMMANDS)


def test_every_command_can_be_imported_and_explains_itself() -> None:
    for name in cli.COMMANDS:
        result = CliRunner().invoke(cli.main, [name, "--help"])
        assert result.exit_code == 0, result.output


def test_an_unknown_command_is_refused() -> None:
    assert CliRunner().invoke(cli.main, ["nonsense"]).exit_code == 2
