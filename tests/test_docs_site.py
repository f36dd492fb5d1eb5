"""The site is built without network or warning, fetches nothing, and finds what one looks for."""

import json
import os
import re
import shutil
import subprocess

import pytest
from documents import ROOT, pages

PYTHON = ROOT / ".venv" / "docs" / "bin" / "python"  # made by ./docs/build
LOCK = ROOT / "requirements-docs.lock"

SEARCH = ROOT / "tests" / "test_docs_site.js"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site, on a machine without a network where one can be made."""
    if not PYTHON.exists():
        if os.environ.get("AI_MUX_PACKAGING") == "required":
            pytest.fail("AI_MUX_PACKAGING=required: run ./docs/build first")
        pytest.skip("the site's tools are missing: run ./docs/build")
    directory = tmp_path_factory.mktemp("site")
    alone = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode != 0:
        alone = []
    command = [PYTHON, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "-c", "docs/site"]
    done = subprocess.run(
        [*alone, *command, "-d", directory / "doctrees", ".", directory / "html"],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return directory / "html"


def test_every_document_has_a_page(site):
    for page in pages():
        if page.count("/") == 0 or page.startswith("docs/"):
            assert (site / page).with_suffix(".html").exists(), page
    assert "docs/README.html" in (site / "index.html").read_text()


def test_the_pages_say_their_language(site):
    for page, language in (("README", "en"), ("README.zh", "zh-Hans"), ("docs/configuration.zh", "zh-Hans")):
        assert re.search(r'<html\b[^>]* lang="([^"]+)"', (site / f"{page}.html").read_text())[1] == language


def test_the_pages_fetch_nothing_from_elsewhere(site):
    elsewhere = r"(?:https?:)?//"
    tag = r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)"
    fetched = re.compile(rf"""{tag}="{elsewhere}|@import[^;]*?//|url\(["']?{elsewhere}""")
    looked_at = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(looked_at) > 25
    assert {str(path): found for path in looked_at if (found := fetched.findall(path.read_text()))} == {}


def test_no_two_entries_of_the_contents_have_the_same_name(site):
    page = (site / "docs" / "README.html").read_text()
    contents = page.partition('class="sidebar-tree"')[2].partition("</aside>")[0]
    names = re.findall(r'<a class="[^"]*\breference internal" href="[^"]+">([^<]+)</a>', contents)
    assert len(names) > 25
    assert [name for name in names if names.count(name) > 1] == []


def test_the_picture_of_a_request_can_be_opened(site):
    page = site / "docs" / "explanation" / "architecture.html"
    picture = re.search(r'<a [^>]*href="([^"]+)"[^>]*><img [^>]*src="([^"]+)"', page.read_text())
    led_to, shown = picture.groups()
    assert led_to == shown
    assert (page.parent / led_to).read_text().startswith("<svg")


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_search_finds_names_beginnings_and_chinese(site):
    questions = [
        "retry-after",
        "refresh_check_inter",
        "credential.not_saved",
        "中文",
        "限额",
        "xylophone",
    ]
    done = subprocess.run(
        ["node", SEARCH, site, *questions], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    header, setting, event, chinese, limits, nothing = json.loads(done.stdout)
    assert {"docs/reference/errors", "docs/reference/limits", "docs/reference/http"} <= set(header)
    assert "docs/configuration.en" in setting
    assert "docs/reference/log" in event
    assert {"README", "docs/configuration"} <= set(chinese)
    assert {"docs/configuration.zh", "README.zh"} <= set(limits)
    assert nothing == []


def test_the_lock_names_no_address():
    assert "//" not in LOCK.read_text()
    locked = re.findall(r"^([a-z0-9-]+)==", LOCK.read_text(), re.M)
    assert {"sphinx", "myst-parser", "furo"} <= set(locked)
    assert LOCK.read_text().count("--hash=sha256:") >= len(locked)
