"""Which Pythons run the tests, all at once, and what is said of each; the Pythons are made up."""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time

import pytest
from documents import ROOT
from release_scripts import SCRIPTS

# For made-up tests: waits, for half a minute, until a file is there.
AWAIT = "await() { n=0; until [ -e $1 ]; do n=$((n+1)); [ $n -lt 3000 ] || exit 9; sleep 0.01; done; }\n"


@pytest.fixture
def machine(tmp_path):
    """A checkout, and commands that hold only the Pythons which a test puts there."""
    checkout, commands = tmp_path / "checkout", tmp_path / "bin"
    (checkout / "scripts" / "release").mkdir(parents=True)
    shutil.copy(SCRIPTS / "every-python", checkout / "scripts" / "release")
    finding = (ROOT / "scripts" / "environment.sh").read_text().partition("\nmake_environment()")[0]
    # What is installed is a program that tells how pytest would be called, and runs a test's own words.
    (checkout / "scripts" / "environment.sh").write_text(
        finding
        + """
make_environment() {
    mkdir -p "$1/bin"
    tells='echo "%s:" "$AI_MUX_ENGINE" "$@"; version=%s; eval "$TESTS"'
    printf "#!/bin/sh\\n$tells\\n" "$PYTHON" "${1#.venv/}" >"$1/bin/python"
    chmod +x "$1/bin/python"
}
"""
    )
    commands.mkdir()
    (tmp_path / "kept").mkdir()
    for command in ("sh", "dirname", "cat", "mkdir", "chmod", "mktemp", "rm", "sleep", "tail"):
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
program, sys.argv = sys.argv[2], sys.argv[2:]
exec(program)
"""
            )
            path.chmod(0o755)
            return path

        def has_pyenv(self):
            (commands / "pyenv").write_text(f"#!/bin/sh\necho {tmp_path}/pyenv\n")
            (commands / "pyenv").chmod(0o755)

        def begins(self, *arguments, tests="", fds=()):
            environment = {"PATH": str(commands), "TMPDIR": str(tmp_path / "kept"), "TESTS": tests}
            return subprocess.Popen(
                [checkout / "scripts" / "release" / "every-python", *arguments],
                env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                pass_fds=fds,
            )  # fmt: skip

        def runs(self, *arguments, **how):
            process = self.begins(*arguments, **how)
            printed, said = process.communicate(timeout=60)
            return process.returncode, printed.splitlines(), said

        def keeps(self):
            return [*(tmp_path / "kept").iterdir()]

        @property
        def checkout(self):
            return checkout

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
    code, ran, said = machine.runs(tests="[ $version = 3.14 ] || exit 1")
    assert (code, len(ran)) == (1, 2)
    assert said.endswith("Failed on Python 3.12.\n")
    code, ran, said = machine.runs(tests="exit 1")
    assert (code, len(ran)) == (1, 2)
    assert said.endswith("Failed on Python 3.12 3.14.\n")


def test_they_run_at_the_same_time_and_what_they_say_is_kept_apart_and_in_order(machine):
    machine.has((3, 12), "bin/python3.12")
    machine.has((3, 14), "bin/python3.14")
    # Each needs the other one to have come so far; 3.14 has ended before 3.12 speaks on.
    tests = """
case $version in
3.12) : >begun; await ended; echo "first's"; echo "its errors" >&2 ;;
3.14) await begun; echo "second's"; : >ended ;;
esac
"""
    code, printed, said = machine.runs(tests=AWAIT + tests)
    assert code == 0, said
    assert [line for line in printed if "asyncio" not in line] == ["first's", "its errors", "second's"]
    assert not machine.keeps()


def test_the_last_line_of_each_is_repeated_at_the_end(machine):
    machine.has((3, 12), "bin/python3.12")
    machine.has((3, 14), "bin/python3.14")
    _, _, said = machine.runs(tests='echo words; echo "=== 7 passed on $version ==="; [ $version = 3.12 ]')
    assert said.splitlines()[-5:] == [
        "Tested on Python 3.11 by ./test, and here on: 3.12 3.14.",
        "Python 3.12: === 7 passed on 3.12 ===",
        "Python 3.14: === 7 passed on 3.14 ===",
        "NOT TESTED, because not on this machine: Python 3.13. It is declared and locked.",
        "Failed on Python 3.14.",
    ]


def test_the_tests_can_be_interrupted_and_so_can_the_programs_that_they_start(machine):
    machine.has((3, 12), "bin/python3.12")
    asks = "import signal; print(*map(signal.getsignal, (signal.SIGINT, signal.SIGQUIT)))"
    _, printed, _ = machine.runs(tests=f"exec {sys.executable} -c '{asks}'")
    assert printed[-1] == f"{signal.default_int_handler} {signal.SIG_DFL}"


@pytest.mark.parametrize("why", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_when_it_is_stopped_it_leaves_neither_tests_nor_files(machine, why):
    machine.has((3, 12), "bin/python3.12")
    machine.has((3, 14), "bin/python3.14")
    ends, held = os.pipe()
    process = machine.begins(tests=": >begun.$version; exec sleep 60", fds=[held])
    os.close(held)
    deadline = time.monotonic() + 30
    while len([*machine.checkout.glob("begun.*")]) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(why)
    process.communicate(timeout=30)
    assert process.returncode == 128 + why
    # All that held the other end have ended, and nothing was ever written into it.
    assert select.select([ends], [], [], 30)[0]
    assert os.read(ends, 1) == b""
    os.close(ends)
    assert not machine.keeps()


def test_the_same_versions_are_declared_tried_and_looked_for():
    declared = re.findall(
        r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    tried = re.search(r"^for version in (.+); do", (SCRIPTS / "every-python").read_text(), re.M)[1].split()
    found = re.search(r'candidates="(.+)" newest', (ROOT / "scripts" / "environment.sh").read_text())[1]
    assert tried == declared
    assert sorted(re.findall(r"python(3\.\d+)", found)) == declared
