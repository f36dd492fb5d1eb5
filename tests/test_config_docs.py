"""The reference says what the code does: every key stands in it, and every example loads."""

import hashlib
import json
import re
from pathlib import Path

import pytest
from documents import links

from ai_mux.config import KEYS, load
from ai_mux.config.providers import FORBIDDEN_HEADERS
from ai_mux.config.tokens import DOCUMENTED

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "configuration.en.md"
SECTIONS = {
    "": "Fields",
    "providers[]": "providers",
    "users[]": "users",
    "users[].limits": "limits",
    "tls": "tls",
    "limits": "limits",
    "usage": "usage",
    "usage.prices[]": "prices",
    "admin": "admin",
}

BLOCKS = re.findall(r"^```(yaml|json)\n(.*?)^```", REFERENCE.read_text(), re.DOTALL | re.MULTILINE)
CONFIGURATIONS = [(kind, text) for kind, text in BLOCKS if "made-up-access-token" not in text]


def section(title: str) -> str:
    """Return what stands below a heading of the second level."""
    _, _, after = REFERENCE.read_text().partition(f"\n## {title}\n")
    return after.partition("\n## ")[0]


@pytest.mark.parametrize(("at", "key"), [(at, key) for at, keys in KEYS.items() for key in keys])
def test_every_key_has_a_row_in_its_section(at, key):
    assert re.search(rf"^\| `{re.escape(key)}` \|", section(SECTIONS[at]), re.MULTILINE)


@pytest.mark.parametrize(("at", "title"), SECTIONS.items())
def test_every_row_is_a_key(at, title):
    table = section(title).partition("\n\n```")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(KEYS[at])


def test_every_forbidden_header_is_named():
    names = {name for names in FORBIDDEN_HEADERS.values() for name in names}
    assert names <= set(re.findall(r"`([\w*-]+)`", section("providers")))


def test_there_are_examples():
    assert len(CONFIGURATIONS) >= 12


@pytest.mark.parametrize(("kind", "text"), CONFIGURATIONS)
def test_every_example_loads(tmp_path, kind, text):
    from test_config_tls import CERTIFICATE, KEY  # noqa: PLC0415

    for name, content in {
        "tls.crt": CERTIFICATE,
        "ca.pem": CERTIFICATE,
        "tls.key": KEY,
        "carol.token": "a-token-for-this-test-only\n",
        "prometheus.token": "another-token-for-this-test-only\n",
    }.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    file = tmp_path / f"example.{kind}"
    file.write_text(text.replace("/etc/ai-mux/", f"{tmp_path}/"))
    file.chmod(0o600)
    warnings = load(file, known_providers=("claude", "chatgpt")).warnings
    expected = ("stands in the documentation", "every provider's path is a 404")
    assert [line for line in warnings if not any(piece in line for piece in expected)] == []


def test_the_examples_of_credential_files_are_json():
    credentials = [json.loads(text) for kind, text in BLOCKS if "made-up-access-token" in text]
    assert len(credentials) == 3


def test_field_note_13_every_token_in_the_documentation_is_known_as_such():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    written = r"\btoken\"?(?:: *| = )\"([!-~]{16,}?)\""  # in YAML, JSON and Nix
    tokens = [token for page in pages for token in re.findall(written, page.read_text())]
    assert len(tokens) >= 4
    assert set(tokens) <= DOCUMENTED
    digests = re.findall(r"\b[0-9a-f]{64}\b", REFERENCE.read_text())
    assert digests
    assert set(digests) <= {hashlib.sha256(token.encode()).hexdigest() for token in DOCUMENTED}


def test_the_short_page_leads_to_both_languages():
    assert {"configuration.en.md", "configuration.zh.md"} <= set(links("docs/configuration.md"))
