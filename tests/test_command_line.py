"""What is typed: slips lead to the right form, and every verb and option is documented."""

import json
import os
import re
import subprocess
import sys
import tomllib

import click
import pytest
from documents import ROOT

from ai_mux import systemd
from ai_mux.check import as_json, examine
from ai_mux.cli import cli
from ai_mux.client_config import CLIENTS
from ai_mux.config import load
from ai_mux.providers import PROVIDERS
from ai_mux.storage.inspect import Kind, Level

DOCUMENT = (ROOT / "docs" / "reference" / "command-line.md").read_text()
SECTIONS = dict(re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", DOCUMENT, re.M | re.S))


def ai_mux(*arguments, cwd):
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd)}
    command = [sys.executable, "-m", "ai_mux", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["serve"], "ai-mux --config FILE"),
        (["config.yaml"], "ai-mux --config config.yaml"),
        (["a b.yaml"], "ai-mux --config 'a b.yaml'"),
        (["check", "config.yaml"], "Did you mean: ai-mux check --config config.yaml"),
        (["check", "--json", "c.json"], "Did you mean: ai-mux check --json --config c.json"),
        (["config.yaml", "check"], "Did you mean: ai-mux check --config config.yaml"),
        (["client-config", "codex", "c.yml"], "Did you mean: ai-mux client-config codex --config c.yml"),
        (["login", "claude", "config.yaml"], "Did you mean: ai-mux login claude --config config.yaml"),
        (["login", "config.yaml"], "Did you mean: ai-mux login PROVIDER --config config.yaml"),
        (["demo", "config.yaml"], "ai-mux demo"),
        (["--listen", ":80"], "listen is a setting of the configuration file"),
        (["demo", "--config", "x.yaml"], "ai-mux demo"),
        (["--config", "x.yaml", "check"], "ai-mux check --config x.yaml"),
        (["login"], "ai-mux login --help"),
        (["login", "codex"], "ai-mux login chatgpt"),
        (["login", "claude-code"], "ai-mux login claude"),
        (["client-config", "emacs"], "claude-code"),
        (["frobnicate"], "ai-mux --help"),
    ],
)
def test_a_slip_is_exit_code_2_and_leads_to_the_right_form(tmp_path, typed, told):
    done = ai_mux(*typed, cwd=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_every_verb_and_option_stands_in_the_reference(verb):
    section = SECTIONS[verb]
    for parameter in cli.commands[verb].params:
        if isinstance(parameter, click.Option) and parameter.name != "path":
            for option in [*parameter.opts, *parameter.secondary_opts]:
                assert f"`{option}" in section, option


def test_the_reference_has_no_other_verbs():
    assert set(SECTIONS) == set(cli.commands)


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_stands_in_the_reference(client):
    assert f"`{client}`" in SECTIONS["client-config"]


def test_every_member_and_word_of_the_json_stands_in_the_reference(tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps({"state_dir": str(tmp_path), "providers": ["claude"]}))
    config = load(file, known_providers=tuple(PROVIDERS))
    document = json.loads(as_json(examine(config, PROVIDERS, now=0, environ={})))
    members = {"ok", *(f"findings[].{name}" for name in document["findings"][0])}
    members |= {f"credentials[].{name}" for name in document["credentials"][0]}
    assert set(re.findall(r"^\| `([a-z_.\[\]]+)` \| (?:bool|string)", SECTIONS["check"], re.M)) == members
    for word in [*(kind.value for kind in Kind), *(level.value for level in Level)]:
        assert f"`{word}`" in SECTIONS["check"]


def test_every_variable_of_the_environment_stands_in_the_reference():
    table = DOCUMENT.partition("## Environment variables")[2].partition("\n## ")[0]
    told = {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
    manual = (ROOT / "packaging" / "man" / "ai-mux.1").read_text()
    section = manual.partition(".Sh ENVIRONMENT")[2].partition("\n.Sh ")[0]
    asked = {
        name for line in re.findall(r"^\.It Ev (.*)$", section, re.M) for name in re.findall(r"\w+", line)
    }
    asked = asked - {"Ev"} | {*systemd._NOTIFY, *systemd._LISTEN, "CREDENTIALS_DIRECTORY"}
    assert len(asked) > 10
    assert asked <= told


def test_the_reference_says_where_completions_and_man_page_are():
    section = DOCUMENT.partition("## Completion and the man page")[2].partition("\n## ")[0]
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(re.findall(r"^\| `(share/.*?)` \|", section, re.M)) == set(wheel["shared-data"].values())


def test_the_options_of_the_server_stand_at_the_beginning():
    beginning = DOCUMENT.partition("\n## ")[0]
    for parameter in cli.params:
        assert any(option in beginning for option in parameter.opts), parameter.opts
