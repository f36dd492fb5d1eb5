"""What a document says in English it says in Chinese: the same sections, commands, settings and figures."""

import re
from collections import Counter

import pytest
from documents import ROOT, sections

PAIRS = [("README.md", "README.zh.md"), ("docs/configuration.en.md", "docs/configuration.zh.md")]
# Where a comment begins in a block, by its language. A comment may be translated.
COMMENT = {"js": r"//"}
# A column of a type, a default or a level, by its header in English.
TYPES = {"Type", "Level"}
# A number; a full stop behind it belongs to the sentence.
FIGURE = re.compile(r"\d+(?:[.,:]\d+)*")

pytestmark = pytest.mark.parametrize(("english", "chinese"), PAIRS, ids=[pair[0] for pair in PAIRS])


def both(english, chinese):
    """Return the sections of both, side by side."""
    return list(zip(sections(english), sections(chinese), strict=True))


def without_comments(language, body):
    comment = COMMENT.get(language, "#")
    lines = (re.sub(rf"(^|\s){comment}( .*|$)", "", line).rstrip() for line in body.splitlines())
    return [line for line in lines if line]


def in_english(link):
    """Return where a link leads, whichever of the languages it leads to. Anchors are tested as links are."""
    path = link.partition("#")[0]
    return re.sub(r"^(.*)\.(?:zh|en)\.md$", r"\1.md", path)


def test_the_sections_are_the_same_in_the_same_order(english, chinese):
    ours, theirs = ([section.level for section in sections(document)] for document in (english, chinese))
    assert ours == theirs


def test_a_heading_that_names_a_setting_or_a_client_is_not_translated(english, chinese):
    for ours, theirs in both(english, chinese):
        if re.fullmatch(r"[a-z_]+|[A-Z]\w+ Code|Codex|Python|JavaScript|ChatGPT|Claude", ours.title):
            assert theirs.title == ours.title


def test_blocks_are_the_same_but_for_comments(english, chinese):
    for ours, theirs in both(english, chinese):
        assert [language for language, _ in theirs.fences] == [language for language, _ in ours.fences], (
            ours.title
        )
        for (language, our_body), (_, their_body) in zip(ours.fences, theirs.fences, strict=True):
            assert without_comments(language, their_body) == without_comments(language, our_body), ours.title


def test_blocks_are_marked_alike(english, chinese):
    """A block that is not run in one is not run in the other; why may be said in either language."""
    marks = r"<!-- (not run|keeps running|run by: \S+|file: \S+)"
    for ours, theirs in both(english, chinese):
        assert re.findall(marks, theirs.text) == re.findall(marks, ours.text), ours.title


def test_settings_and_commands_in_the_text_are_the_same(english, chinese):
    for ours, theirs in both(english, chinese):
        assert Counter(set(theirs.code)) == Counter(set(ours.code)), ours.title


def test_tables_have_the_same_rows_with_the_same_names_types_and_defaults(english, chinese):
    types = {}
    for ours, theirs in both(english, chinese):
        assert [len(row) for row in theirs.rows] == [len(row) for row in ours.rows], ours.title
        header = []
        for our_row, their_row in zip(ours.rows, theirs.rows, strict=True):
            if header and set(our_row[0]) <= set("-: "):
                continue
            following = ours.rows[ours.rows.index(our_row) + 1 :][:1]
            if following and set(following[0][0]) <= set("-: "):
                header = our_row
                continue
            for name, our_cell, their_cell in zip(header, our_row, their_row, strict=True):
                if name in TYPES and "`" not in our_cell:
                    assert types.setdefault(our_cell, their_cell) == their_cell, our_row
                elif name in TYPES or name in {"Default", header[0]}:
                    assert re.findall(r"`[^`]+`", their_cell) == re.findall(r"`[^`]+`", our_cell), our_row
                assert FIGURE.findall(their_cell) == FIGURE.findall(our_cell), our_row
    assert len(set(types.values())) == len(types), "two types have one name in Chinese"


def test_figures_in_the_text_are_the_same(english, chinese):
    for ours, theirs in both(english, chinese):
        assert Counter(FIGURE.findall(theirs.prose)) == Counter(FIGURE.findall(ours.prose)), ours.title


def test_links_lead_to_the_same_pages(english, chinese):
    for ours, theirs in both(english, chinese):
        assert Counter(map(in_english, theirs.links)) == Counter(map(in_english, ours.links)), ours.title


def test_each_leads_to_the_other(english, chinese):
    for page, other in ((english, chinese), (chinese, english)):
        assert f"]({other.rpartition('/')[2]})" in (ROOT / page).read_text()[:400]
