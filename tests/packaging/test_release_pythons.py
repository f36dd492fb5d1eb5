"""Which Pythons run the tests, and that those which are missing are named; the Pythons are made up."""

import re
import shutil
import subprocess
import sys

import pytest
from documents import ROOT
from release_scripts import SCRIPTS


@pytest.fixture
def machine(tmp_path):
    """A checkout, and commands that hold only the Pythons which a test puts there."""
    checkout, commands = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "scripts" / "release").mkdir(parents=True)
    shutil.copy(SCRIPTS / "every-python", checkout / "scripts" / "release")
    finding = (ROOT / "scripts" / "environment.sh").read_text().partition("\nmake_environment()")[0]
    # What is installed is a program that tells how pytest would be called.
    (checkout / "scripts" / "environment.sh").write_text(
        finding
        + """
make_environment() {
    mkdir -p "$1/bin"
    tells='echo "%s:" "$AI_MUX_ENGINE" "$@"'
    printf "#!/bin/sh\\n$tells\\nexit %s\\n" "$PYTHON" "${FAILS:-0}" >"$1/bin/python"
    chmod +x "$1/bin/python"
}
"""
    )
    commands.mkdir()
    for command in ("sh", "dirname", "cat", "mkdir", "chmod"):
        (commands / command).symlink_to(shutil.which(command))

    class Machine:
        def has(self, version, path):
            path = tmp_path / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                f"""#!{sys.executable}
import collections, sys
Version = collections.namedtuple("Version", "major minor")
sys.version_info = Version{version!r}
exec(sys.argv[2])
"""
            )
            path.chmod(0o755)
            return path

        def has_pyenv(self):
            (commands / "pyenv").write_text(f"#!/bin/sh\necho {tmp_path}/pyenv\n")
            (commands / "pyenv").chmod(0o755)

        def runs(self, *arguments, **environment):
            done = subprocess.run(
                [checkout / "scripts" / "release" / "every-python", *arguments],
                env={"PATH": str(commands)} | environment,
                check=False, capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            return done.returncode, done.stdout.splitlines(), done.stderr

    it = Machine()
    it.has((3, 11), "bin/python3")
    return it


def test_each_other_python_runs_the_tests_on_asyncio_and_the_missing_are_named(machine):
    machine.has((3, 12), "bin/python3.12")
    machine.has((3, 9), "bin/python3.13")  # as pyenv's shim, which is there and cannot be used
    machine.has_pyenv()
    of_pyenv = machine.has((3, 13), "pyenv/versions/3.13.9/bin/python")
    code, ran, said = machine.runs("tests/wire")
    tests = "asyncio -m pytest -p no:cacheprovider -m not clients tests/wire"
    assert (code, ran) == (0, [f"python3.12: {tests}", f"{of_pyenv}: {tests}"])
    assert "Tested on Python 3.11 by ./test, and here on: 3.12 3.13." in said
    assert "NOT TESTED, because not on this machine: Python 3.14." in said


def test_with_one_python_alone_it_passes_and_says_so(machine):
    code, ran, said = machine.runs()
    assert (code, ran) == (0, [])
    assert "here on: none other." in said
    assert "Python 3.12 3.13 3.14" in said


def test_a_failure_on_one_fails_after_all_have_run(machine):
    machine.has((3, 12), "bin/python3.12")
    machine.has((3, 14), "bin/python3.14")
    code, ran, said = machine.runs(FAILS="1")
    assert (code, len(ran)) == (1, 2)
    assert "Failed on Python 3.12 3.14." in said


def test_the_same_versions_are_declared_tried_and_looked_for():
    declared = re.findall(
        r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    tried = re.search(r"^for version in (.+); do", (SCRIPTS / "every-python").read_text(), re.M)[1].split()
    found = re.search(r'candidates="(.+)" newest', (ROOT / "scripts" / "environment.sh").read_text())[1]
    assert tried == declared
    assert sorted(re.findall(r"python(3\.\d+)", found)) == declared
