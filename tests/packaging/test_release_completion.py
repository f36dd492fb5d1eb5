"""Completion, by real shells: a word of ours is completed, a file's name after --config."""

import os
import re
import subprocess
import sysconfig

import pytest
from documents import ROOT
from fakes.terminal import Terminal
from release_scripts import SCRIPTS, script

completion = script("completion")


@pytest.fixture
def person(tmp_path):
    """Somebody in a directory with a configuration, who has ai-mux on PATH."""
    (tmp_path / "settings-of-mine.yaml").touch()
    home = tmp_path / "home"
    home.mkdir()
    path = f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8", "PS1": "ready> "}


@pytest.fixture
def typing(tmp_path, person):
    """Return a function that starts a shell at a terminal."""
    shells = []

    def start(*command):
        shells.append(Terminal(command, cwd=tmp_path, env=person))
        return shells[-1]

    yield start
    for shell in shells:
        shell.close()


@pytest.mark.parametrize("shell", completion.FILES)
def test_what_is_committed_is_what_click_gives_now(shell):
    committed = (completion.DIRECTORY / completion.FILES[shell]).read_text(encoding="utf-8")
    assert committed == completion.source(shell), f"run {SCRIPTS / 'completion.py'}"


def completes(shell):
    for typed, completed in (
        ("ai-mux us", "ai-mux usage "),
        ("ai-mux usage --si", "ai-mux usage --since "),
        ("ai-mux login cha", "ai-mux login chatgpt "),
        ("ai-mux --config settings-o", "ai-mux --config settings-of-mine.yaml"),
        ("ai-mux check --config settings-o", "ai-mux check --config settings-of-mine.yaml"),
    ):
        shell.shown = ""
        shell.type(f"{typed}\t")
        shell.until(completed)
        shell.type("\x15")  # Ctrl-U: the line is given up


def test_bash_completes_commands_options_and_files(needed, typing):
    shell = typing(needed("bash"), "--norc", "--noprofile", "-i")
    shell.until("ready> ")
    shell.type(f"source {completion.DIRECTORY / 'ai-mux.bash'}; complete -p ai-mux\n")
    shell.until("complete -o nosort -F _ai_mux_completion ai-mux\n")
    completes(shell)


def test_zsh_completes_commands_options_and_files(needed, typing):
    shell = typing(needed("zsh"), "--no-rcs", "-i")
    shell.until("ready> ")
    shell.type(f"PS1='now> '; fpath=({completion.DIRECTORY} $fpath); autoload -Uz compinit; compinit -u -D\n")
    shell.until("now> \x1b")  # what was typed has no control character there
    completes(shell)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("ai-mux us", ["usage"]),
        ("ai-mux usage --si", ["--since"]),
        ("ai-mux login ", ["chatgpt", "claude"]),
        ("ai-mux check --config settings-o", ["settings-of-mine.yaml"]),
        ("ai-mux --config settings-of-mine.yaml ", []),  # this is the server, which takes no more words
    ],
)
def test_fish_completes_commands_options_and_files(needed, person, tmp_path, typed, offered):
    program = f"source '{completion.DIRECTORY / 'ai-mux.fish'}'; complete --do-complete '{typed}'"
    done = subprocess.run(
        [needed("fish"), "--no-config", "--command", program],
        cwd=tmp_path, env=person, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == offered


@pytest.mark.parametrize(
    ("shell", "before", "after"),
    [
        ("bash", "", "complete -p ai-mux"),
        ("zsh", "autoload -Uz compinit; compinit -D -u", "print $_comps[ai-mux]"),
        ("fish", "", "complete --do-complete 'ai-mux us'"),
    ],
)
def test_the_line_of_the_reference_switches_completion_on(needed, person, tmp_path, shell, before, after):
    reference = (ROOT / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
    line = re.search(rf"^- {shell}, .*: `(.*)`$", reference, re.M)[1]
    done = subprocess.run(
        [needed(shell), "-c", "\n".join((before, line, after))],
        cwd=tmp_path, env=person, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert "_ai_mux_completion" in done.stdout or done.stdout.startswith("usage\t")
