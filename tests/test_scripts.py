"""Which Python the scripts at the root choose, and what they say where there is none."""

import shutil
import subprocess
import sys

import pytest
from documents import ROOT


@pytest.fixture
def machine(tmp_path):
    """A machine on which only the made-up Pythons exist that a test puts there."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for command in ("sh", "dirname", "cat"):
        (commands / command).symlink_to(shutil.which(command))

    class Machine:
        def has(self, command, version, *, venv=True):
            """Add a Python that says it is of a version; ``venv`` tells whether it has ensurepip."""
            program = commands / command
            program.write_text(
                f"""#!{sys.executable}
import collections, sys
Version = collections.namedtuple("Version", "major minor")
sys.version_info = Version{version!r}
if not {venv!r}:
    sys.modules["ensurepip"] = None
exec(sys.argv[2])
"""
            )
            program.chmod(0o755)

        def finds(self, **environment):
            """Return (exit code, the chosen command, what was said) of looking for a Python."""
            looked = subprocess.run(
                ["sh", "-c", '. scripts/environment.sh; find_python; echo "$python"'],
                cwd=ROOT, env={"PATH": str(commands)} | environment,
                check=False, capture_output=True, text=True,
            )  # fmt: skip
            return looked.returncode, looked.stdout.strip(), looked.stderr

    return Machine()


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_python3_is_taken_where_it_is_recent_enough(machine, minor):
    machine.has("python3", (3, minor))
    assert machine.finds() == (0, "python3", "")


@pytest.mark.parametrize("other", ["python3.11", "python3.14"])
@pytest.mark.parametrize("minor", [9, 15])
def test_another_is_looked_for_where_python3_is_too_old_or_too_new(machine, minor, other):
    machine.has("python3", (3, minor))
    machine.has(other, (3, int(other.removeprefix("python3."))))
    assert machine.finds() == (0, other, "")


def test_without_any_it_says_which_are_needed(machine):
    machine.has("python3", (3, 9))
    code, chosen, said = machine.finds()
    assert (code, chosen) == (1, "")
    assert "3.11, 3.12, 3.13 or 3.14" in said


def test_debians_python_without_ensurepip_is_told_apart_and_the_package_named(machine):
    machine.has("python3", (3, 11), venv=False)
    code, chosen, said = machine.finds()
    assert (code, chosen) == (1, "")
    assert "apt install python3.11-venv" in said


def test_a_whole_python_is_preferred_to_one_without_ensurepip(machine):
    machine.has("python3", (3, 11), venv=False)
    machine.has("python3.12", (3, 12))
    assert machine.finds() == (0, "python3.12", "")


def test_a_python_asked_for_by_name_is_taken_even_if_newer(machine):
    machine.has("python3", (3, 11))
    machine.has("mine", (3, 15))
    assert machine.finds(PYTHON="mine") == (0, "mine", "")


def test_a_python_asked_for_by_name_that_is_too_old_is_refused(machine):
    machine.has("python3", (3, 11))
    machine.has("mine", (3, 10))
    code, _, said = machine.finds(PYTHON="mine")
    assert code == 1
    assert "PYTHON=mine" in said
