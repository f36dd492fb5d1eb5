"""What the documents at the root say is so.

Their examples of clients run in tests/clients.
"""

import os
import re
import subprocess
import tomllib

import pytest
from documents import ROOT, blocks

from ai_mux.cli import cli
from ai_mux.config import load
from ai_mux.errors import ConfigError
from ai_mux.providers import PROVIDERS

_DOCUMENTS = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
_WITH_TLS, _PLAIN = (
    [block for block in blocks("yaml") if ("cert_path" in block) is tls] for tls in (True, False)
)


@pytest.fixture
def read(tmp_path):
    """Load a text as a configuration file."""

    def read(text):
        file = tmp_path / "config.yaml"
        file.touch(0o600)
        file.write_text(text)
        return load(file, known_providers=tuple(PROVIDERS))

    return read


@pytest.mark.parametrize("block", _PLAIN)
def test_the_readmes_configurations_load_and_warn_of_nothing_but_their_tokens(read, block):
    config = read(block)

    assert config.providers
    assert len(config.warnings) == len(config.users) > 0
    assert all("documentation" in warning for warning in config.warnings)


@pytest.mark.parametrize("block", _WITH_TLS)
def test_the_readmes_tls_configuration_lacks_nothing_but_the_certificate(read, block):
    with pytest.raises(ConfigError) as caught:
        read(block)

    assert all(re.search(r"tls\.(cert|key)_path", line) for line in caught.value.lines)


def test_the_readme_lists_the_ten_fields_that_never_change():
    table = (ROOT / "README.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z_.]+)` +\| [a-z]+ +\| `([^`]*)` +\|", table, re.MULTILINE))

    assert rows == {
        "listen": ":8080", "state_dir": "~/.ai-mux", "providers": "[]", "log_level": "info",
        "request_timeout": "60s", "refresh_check_interval": "10m", "users": "[]",
        "tls.enabled": "false", "tls.cert_path": '""', "tls.key_path": '""',
    }  # fmt: skip


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_commands_that_are_named_exist(document):
    text = (ROOT / document).read_text()

    for script in set(re.findall(r"(?<![\w.])(\./[a-z]\w*|\.ci/run)", text)):
        assert os.access(ROOT / script, os.X_OK), script
    for verb in re.findall(r"(?:\./start|`ai-mux) ([a-z][a-z-]*)", text):
        assert verb in cli.commands, verb


@pytest.mark.parametrize("script", ["start", "test", "scripts/environment.sh"])
def test_the_scripts_are_plain_sh(script):
    subprocess.run(["sh", "-n", ROOT / script], check=True)


def test_every_module_has_its_floor_in_the_table():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    modules = {name for layer in contracts[0]["layers"] for name in re.findall(r"\w+", layer)} - {"__main__"}
    table = re.findall(r"^\| (`.*?) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert modules - {name for names in table for name in re.findall(r"`(\w+)`", names)} == set()
