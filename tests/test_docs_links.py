"""Links between the documents lead somewhere, anchors included, and every page can be reached."""

import os

import pytest
from documents import ROOT, anchors, links, pages

PAGES = pages()
BEGINNINGS = ("README.md", "docs/README.md")


def inside(page):
    """Return where a page's links lead within the repository: (path, anchor)."""
    found = []
    for link in links(page):
        if not link.startswith(("https:", "http:", "mailto:")):
            path, _, anchor = link.partition("#")
            there = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page  # noqa: PTH118, PTH120
            found.append((there, anchor))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for path, anchor in inside(page):
        assert (ROOT / path).exists(), path
        assert not anchor or anchor in anchors(path), f"{path}#{anchor}"


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_every_page_can_be_reached(beginning):
    reached, waiting = set(), [beginning]
    while waiting:
        page = waiting.pop()
        if page not in reached and (ROOT / page).exists():
            reached.add(page)
            waiting += [path for path, _ in inside(page) if path.endswith(".md")]
    assert {page for page in PAGES if page.startswith("docs/")} - reached == set()


@pytest.mark.parametrize("kind", ["tutorial", "how-to", "reference", "explanation"])
def test_the_index_of_each_kind_names_all_its_pages(kind):
    there = {page for page in PAGES if page.startswith(f"docs/{kind}/")}
    index = f"docs/{kind}/README.md"
    assert there - {index} <= {path for path, _ in inside(index)}
    assert index in {path for path, _ in inside("docs/README.md")}


def test_the_pages_of_packages_and_environments_are_not_among_them():
    assert "README.md" in PAGES
    assert not [page for page in PAGES if "node_modules" in page or page.startswith(".")]
