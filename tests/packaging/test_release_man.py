"""The man page: what the command line says now, and nothing that a reader of man pages stumbles over."""

import re
import subprocess
from pathlib import Path

import click
import pytest
from documents import ROOT
from release_scripts import SCRIPTS, script

from ai_mux.cli import cli

manual = script("manual")
PAGE = manual.PAGE.read_text(encoding="utf-8")


def plain(page):
    """Return a page's text without what roff adds, on one line."""
    words = re.sub(r"^\.[A-Z][a-z] ?", "", page, flags=re.M).replace("\\-", "-").replace("\\(ti", "~")
    return " ".join(re.sub(r"\\\(oq|\\\(cq", "`", words).replace("Fl -", "--").replace("\\&", "").split())


def test_it_is_what_the_command_line_says_now():
    assert manual.page(date=manual.date_of(PAGE)) == PAGE, f"run {SCRIPTS / 'manual.py'}"


@pytest.mark.parametrize("verb", [None, *sorted(cli.commands)])
def test_it_has_every_text_and_option_of_help(verb):
    command = cli if verb is None else cli.commands[verb]
    for paragraph in (command.help or "").split("\n\n")[verb is None :]:
        assert " ".join(paragraph.split()) in plain(PAGE)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert f"--{parameter.opts[0].removeprefix('--')}" in plain(PAGE)
            assert " ".join((parameter.help or "").split()) in plain(PAGE)
        elif isinstance(parameter.type, click.Choice):
            assert ", ".join(parameter.type.choices) in plain(PAGE)


def test_its_exit_codes_are_those_of_the_reference():
    (reference,) = ROOT.glob("docs/**/command-line.md")
    assert set(manual.EXIT_CODES) == set(re.findall(r"^\| (\d+) \|", reference.read_text(), re.M))


def test_every_variable_that_the_program_reads_stands_in_it():
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    read = set(re.findall(r"""environ(?:\.get\(|\.pop\(|\[)"([A-Z_]+)""", source))
    read |= set(re.findall(r'^(?:ENVIRONMENT|_VARIABLE): Final = "([A-Z_]+)"', source, re.M))
    for names in re.findall(r"^_(?:VARIABLES|EXCEPTIONS|NOTIFY|LISTEN): Final = \(([^)]*)\)", source, re.M):
        read |= set(re.findall(r'"([A-Z_]+)"', names))
    assert {"HOME", "HTTPS_PROXY", "NO_COLOR", "AI_MUX_ENGINE"} <= read
    read -= {"AI_MUX_TOKEN"}  # the clients' own: it stands in what is printed for them
    assert read <= {name for names in manual.ENVIRONMENT for name in names.split(", ")}


def test_writing_it_again_changes_nothing_and_a_change_gets_a_date():
    assert manual.date_of(PAGE)
    assert manual.date_of("") is None
    assert manual.page(date="May 4, 2030").startswith(".Dd May 4, 2030\n.Dt AI-MUX 1\n")


def test_what_roff_would_take_for_its_own_is_escaped():
    (line,) = manual._text(".profile and 'quotes' \\ ~ `code` …")
    assert line == r"\&.profile and 'quotes' \e \(ti \(oqcode\(cq \[u2026]"


@pytest.mark.parametrize(
    "command",
    [
        ["mandoc", "-T", "lint", "-W", "style"],
        ["groff", "-mandoc", "-ww", "-T", "utf8", "-z"],
        ["man", "--warnings", "--local-file"],
    ],
    ids=lambda command: command[0],
)
def test_no_reader_of_man_pages_has_anything_to_say_against_it(needed, command, tmp_path):
    program = needed(command[0])
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(tmp_path), "MANWIDTH": "78"}
    read = subprocess.run(
        [program, *command[1:], manual.PAGE], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    said = read.stderr + (read.stdout if command[0] == "mandoc" else "")
    assert (read.returncode, said) == (0, "")
    if command[0] == "man":
        assert "reach AI subscriptions with ordinary tokens" in read.stdout


def test_it_names_no_machine():
    assert "://" not in PAGE
    assert str(Path.home()) not in PAGE
