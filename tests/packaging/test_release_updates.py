"""The list of what is newer: nobody to ask is told apart from nothing newer, whatever lies at hand."""

import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions

import pytest
from documents import ROOT
from release_scripts import SCRIPTS, Answer, serving

NOBODY = "http://127.0.0.1:9/simple"
WHEEL = "{}-{}-py3-none-any.whl"
NOTHING_NEWER = "Nothing that is locked has a newer version.\n"


@pytest.fixture
def index():
    """An index on loopback that has what is installed here, unless a test gives it another version."""
    had = {re.sub(r"[-_.]+", "-", each.name).lower(): each.version for each in distributions()}

    class Answers(Answer):
        def do_GET(self):
            name = self.path.rstrip("/").rpartition("/")[2]
            file = WHEEL.format(name.replace("-", "_"), had.get(name, "0"))
            body = f"<!DOCTYPE html><html><body><a href='{file}'>{file}</a></body></html>"
            self.answer(body.encode(), kind="text/html")

    with serving(Answers) as server:
        server.had, server.url = had, f"http://127.0.0.1:{server.server_address[1]}/simple"
        yield server


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose lock names one package."""
    checkout = tmp_path / "checkout"
    (checkout / "scripts" / "release").mkdir(parents=True)
    shutil.copy(SCRIPTS / "updates", checkout / "scripts" / "release")
    shutil.copy(ROOT / "scripts" / "environment.sh", checkout / "scripts")
    (checkout / "requirements-dev.lock").write_text("click==8.1.7 \\\n    --hash=sha256:" + "0" * 64 + "\n")
    (checkout / "pyproject.toml").write_text("")
    return checkout


@pytest.fixture
def installed(checkout):
    """The same, where the environment is made already: it is the one that runs the tests."""
    with (checkout / "scripts" / "environment.sh").open("a") as script:
        script.write("make_environment() { :; }\n")
    python = checkout / ".venv" / "test" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return checkout


def updates(checkout, index_url, **environment):
    """Return exit code, what was printed, and what was said beside."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(checkout), "PYTHON": sys.executable, "NO_PROXY": "127.0.0.1"}
    env |= {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": index_url, "PIP_RETRIES": "0"}
    done = subprocess.run(
        [checkout / "scripts" / "release" / "updates"], env=env | environment,
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_with_no_index_there_nothing_is_said_of_versions(installed):
    code, printed, said = updates(installed, NOBODY)
    assert (code, printed) == (0, "")
    assert "NOT CHECKED: no index answered." in said


def test_files_at_hand_are_no_index(installed, tmp_path):
    (at_hand := tmp_path / "wheels").mkdir()
    (at_hand / WHEEL.format("click", "99.0")).touch()
    code, printed, said = updates(installed, NOBODY, PIP_FIND_LINKS=str(at_hand))
    assert (code, printed) == (0, "")
    assert "NOT CHECKED: no index answered." in said


def test_what_is_newer_is_listed(installed, index):
    index.had["click"] = "99.0"
    code, printed, said = updates(installed, index.url)
    assert code == 0
    assert re.search(r"^click +\S+ +99\.0 ", printed, re.M), said
    assert "NOT CHECKED" not in said


def test_where_an_index_answered_that_nothing_is_newer_that_is_said(installed, index):
    code, printed, said = updates(installed, index.url)
    assert (code, printed) == (0, NOTHING_NEWER), said


def test_an_environment_that_could_not_be_installed_is_not_taken_for_whole_the_next_time(checkout, index):
    for _ in range(2):
        code, printed, said = updates(checkout, NOBODY)
        assert (code, printed) == (0, "")
        assert "Installing into .venv/test" in said
        assert "NOT CHECKED: what is locked could not be installed." in said
