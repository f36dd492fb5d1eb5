"""The README, the lesson and every page of docs/how-to are followed, step by step, in an empty home."""

import re
import shutil
import subprocess

import pytest
from documents import ROOT, blocks, links, pages
from how_to.internet import internet
from how_to.pages import Step, is_shown, missing, steps
from how_to.person import MOUNTS, somebody
from ruamel.yaml import YAML

from ai_mux.cli import cli

pytestmark = pytest.mark.clients  # stand-ins for them, and gateway processes

PAGES = sorted(
    str(path.relative_to(ROOT))
    for kind in ("how-to", "tutorial")
    for path in (ROOT / "docs" / kind).glob("*.md")
)
INDEX = "README.md"
# The README begins in a checkout.
CHECKOUT = Step(line=0, language="bash", body="cd ~/ai-mux\n", marks={})


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize("page", [*PAGES, "README.md"])
async def test_a_page_can_be_followed_literally(page, tmp_path):
    async with internet(tmp_path / "internet") as net, somebody(tmp_path / "machines", net) as person:
        for step in [*([CHECKOUT] if page == "README.md" else []), *steps(page)]:
            await person.do(step)


@pytest.mark.parametrize("page", [page for page in PAGES if not page.endswith(INDEX)])
def test_the_index_names_every_page_and_every_page_does_something(page):
    directory, _, name = page.rpartition("/")
    assert name in links(f"{directory}/{INDEX}")
    assert any(step.language == "bash" and "not run" not in step.marks for step in steps(page))


@pytest.mark.parametrize("page", [*PAGES, "README.md"])
def test_what_is_not_run_says_why_and_what_another_test_runs_is_there(page):
    for step in steps(page):
        assert step.marks.get("not run") != "", f"{page}:{step.line}"
        if by := step.marks.get("run by"):
            assert (
                page in (ROOT / by).read_text() or "from documents import blocks" in (ROOT / by).read_text()
            )


def test_nobody_finds_a_block_of_bash_that_no_test_has_followed():
    """Elsewhere commands stand in blocks without a language. The Chinese README has the English one's."""
    followed = {
        *PAGES,
        "README.md",
        "README.zh.md",
        "CONTRIBUTING.md",
    }  # test_docs_languages compares the Chinese
    assert [page for page in pages() if page not in followed and blocks("bash", document=page)] == []


@pytest.mark.parametrize("page", PAGES)
def test_verbs_that_are_named_exist(page):
    for verb in re.findall(
        r"(?:\./start|(?<![\w/])ai-mux) ([a-z][a-z-]+) ", "\n".join(step.body for step in steps(page))
    ):
        assert verb in cli.commands, verb


def _file(page: str, end: str) -> str:
    """Return what a page has people write into a file."""
    (body,) = [step.body for step in steps(page) if step.marks.get("file", "").endswith(end)]
    return body


def test_the_user_service_is_one_that_systemd_takes(tmp_path):
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is missing")
    (unit,) = [
        step.body
        for step in steps("docs/how-to/a-home-server.md")
        if step.marks.get("file", "").endswith(".service")
    ]
    start = tmp_path / "start"
    start.write_text("#!/bin/sh\n")
    start.chmod(0o755)
    file = tmp_path / "ai-mux.service"
    file.write_text(unit.replace("%h/ai-mux/start", str(start)))
    done = subprocess.run(
        [program, "verify", "--user", file], check=False, capture_output=True, text=True, timeout=60,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_container_is_run_with_what_the_page_mounts():
    service = YAML(typ="safe").load(ROOT / "compose.yaml")["services"]["ai-mux"]
    mounted = {one["target"]: one["source"].removeprefix("./container/") for one in service["volumes"]}
    assert mounted == MOUNTS


def test_the_page_about_kubernetes_has_the_configuration_that_is_applied():
    applied = YAML(typ="safe").load(ROOT / "packaging/kubernetes/config.yaml")
    assert _file("docs/how-to/kubernetes.md", "config.yaml") == applied["data"]["config.yaml"]


@pytest.mark.parametrize(
    ("shows", "printed", "lacks"),
    [
        (("one", "three"), "one\ntwo\nthree\n", None),
        (("three", "one"), "one\ntwo\nthree\n", "one"),
        (("warning  …: 3 users",), "  warning  made-up.yaml: 3 users", None),
        (("ok",), "not ok", "ok"),
    ],
)
def test_what_a_page_shows_is_compared_line_by_line(shows, printed, lacks):
    assert missing(shows, printed) == lacks


def test_nothing_but_the_ellipsis_stands_for_something_else():
    assert is_shown("a … c", "a b c")
    assert not is_shown("a.c", "abc")
