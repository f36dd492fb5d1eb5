"""What ./start makes of its command line; the program that it would install is a stand-in here."""

import shutil
import subprocess

import pytest
from documents import ROOT

_ENVIRONMENT = """
say() { printf '%s\\n' "$*" >&2; }
make_environment() {
    mkdir -p "$1/bin"
    printf '#!/bin/sh\\nprintf "%%s\\\\n" "$@"\\n' >"$1/bin/ai-mux"
    chmod +x "$1/bin/ai-mux"
}
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose installation is a program that prints its arguments, a line each."""
    here = tmp_path / "a check out"
    (here / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "start", here)
    (here / "scripts" / "environment.sh").write_text(_ENVIRONMENT)
    return here


def start(checkout, *arguments):
    ran = subprocess.run(
        [checkout / "start", *arguments], cwd=checkout.parent, capture_output=True, text=True, check=True
    )
    return ran.stdout.splitlines()


def test_alone_it_serves_the_configuration_or_else_the_demo(checkout):
    assert start(checkout) == ["demo"]
    (checkout / "config.yaml").touch()
    assert start(checkout) == ["--config", "config.yaml"]


@pytest.mark.parametrize(
    "verb", [("check",), ("login", "claude"), ("client-config", "codex", "--user", "a b")]
)
def test_commands_get_the_configuration_beside_it(checkout, verb):
    assert start(checkout, *verb) == [*verb]
    (checkout / "config.yaml").touch()
    assert start(checkout, *verb) == [*verb, "--config", f"{checkout}/config.yaml"]


@pytest.mark.parametrize(
    "given",
    [("check", "--config", "mine.yaml"), ("check", "--config=mine.yaml"), ("demo", "--once"), ("--help",)],
)
def test_what_names_a_configuration_or_takes_none_is_left_alone(checkout, given):
    (checkout / "config.yaml").touch()
    assert start(checkout, *given) == [*given]
