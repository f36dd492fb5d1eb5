"""A report as it is printed: for a terminal of any width, for a pipe, for programs."""

import csv
import io
import json
import re
from contextlib import closing

import pytest
from documents import ROOT
from fakes.rows import DAY_S, HOUR_S, NOON, refused, row, unmetered, write
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from ai_mux.storage.sqlite import open_for_reading
from ai_mux.usage.store import Group, Sums
from ai_mux.usage.tally import MicroUsd, Tokens
from ai_mux.usage_report import Asked, Report, gather
from ai_mux.usage_report.columns import columns
from ai_mux.usage_report.documents import HEADS, as_csv, as_json
from ai_mux.usage_report.drawn import drawn
from ai_mux.usage_report.rows import table

DOCUMENT = (ROOT / "docs" / "reference" / "usage.md").read_text()

NASTY = [
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "two\nlines", "\r\x08over", "c1\x9b31m", "del\x7f",
    "right\u202eto left", "zero\u200bwidth", "[bold]loud[/bold]", "[/]", "[link=http://a]b[/link]", ":smile:",
    "=1+1", "+1", "-1", "@sum", "＝1", 'quo"te', "com,ma", "a b", "#remark", "back\\slash", "日本語モデル",
    "é́́", "", " ", "total", "x" * 255, "nbsp\u00a0",
]  # fmt: skip


@pytest.fixture
def report(tmp_path):
    """Make a report of these rows."""

    def made(rows, **asked):
        with closing(open_for_reading(write(tmp_path, rows))) as ledger:
            return gather(ledger, Asked(**asked), now_s=NOON)

    return made


@pytest.fixture
def nasty(report):
    return report(
        [row(name, f"m{name}", cost=number) for number, name in enumerate(NASTY)], by=("user", "model")
    )


def shown(report, width=80, *, colour=False, encoding="utf-8"):
    return drawn(report, width=width, colour=colour, encoding=encoding)


def lines_of(text, word):
    return [line for line in text.splitlines() if word in line]


# A terminal


def test_names_reach_a_terminal_as_nothing_but_text(nasty):
    for width in (40, 80, 200):
        text = shown(nasty, width)
        assert text.replace("\n", "").isprintable()
        for literal in (
            "[bold]loud",
            ":smile:",
            "日本語",
            r"\x1b[31m",
            r"two\nl",
            r"back\\sl",
            r"\u202e",
            "(none)",
        ):
            assert width == 40 or literal in text, literal


def test_colours_are_all_that_is_added_to_a_coloured_terminal(nasty):
    text = shown(nasty, colour=True)
    assert "\x1b[" in text
    assert re.sub(r"\x1b\[[0-9;]*m", "", text) == shown(nasty)


def reports():
    names = st.one_of(st.sampled_from(NASTY), st.text(max_size=50))
    sums = st.builds(
        Sums,
        *(st.integers(0, 10**7) for _ in range(4)),
        st.builds(Tokens, *(st.integers(0, 2**70) for _ in range(5))),
        st.integers(0, 2**70).map(MicroUsd),
        *(st.integers(0, 2**70) for _ in range(2)),
    )
    by = st.sampled_from([("user",), ("model", "user"), ("provider", "credential", "model")])

    def made(by, several, survey):
        groups = [Group(key[: len(by)], sums) for key, sums in several.items()]
        unique = list({group.key: group for group in groups}.values())
        tables = (table(by, unique, until_s=NOON),) * (3 if survey else 1)
        return Report(since_s=0.0, until_s=NOON, until_now=True, user=None, is_survey=survey, tables=tables)

    several = st.dictionaries(st.tuples(names, names, names), sums, min_size=1, max_size=30)
    return st.builds(made, by, several, st.booleans())


@given(reports(), st.integers(60, 250), st.booleans())
def test_no_line_is_wider_than_the_terminal(report, width, fancy):
    text = shown(report, width, encoding="utf-8" if fancy else "ascii")
    assert max(cell_len(line) for line in text.splitlines()) <= width
    assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("width", [1, 5, 20, 39])
def test_even_the_smallest_terminal_gets_something(nasty, width):
    assert shown(nasty, width)


def test_a_wide_terminal_is_told_more(report):
    made = report([row("alice"), unmetered("bob"), row("carol", cost=None)])
    wide, middle, narrow = (shown(made, width).partition("─")[0].split()[8:] for width in (120, 80, 60))
    assert {"metered", "priced", "read", "write", "output", "cost"} <= set(wide)
    assert {"gaps", "read", "write", "output", "cost"} <= set(middle)
    assert {"gaps", "tokens", "cost"} <= set(narrow)
    assert not {"metered", "priced", "read", "write"} & set(narrow)


def test_trouble_has_a_column_only_where_there_is_any(report):
    assert not re.search("errors|metered|priced|gaps", shown(report([row()], by=("user",)), 120))
    made = report([row(), refused()], by=("user",))
    assert "errors" in shown(made, 120)
    assert not re.search("metered|priced|gaps", shown(made, 120))


@pytest.mark.parametrize("width", [30, 40, 44, 50, 60])
@pytest.mark.parametrize("by", [("day",), ("hour",), ("user", "day"), ()])
def test_dates_stay_whole_on_a_narrow_terminal(report, width, by):
    made = report(
        [row("a-user-with-a-name", cost=2_000_000), unmetered(), refused()], by=by, since_s=NOON - 3 * DAY_S
    )
    text = shown(made, width)
    assert max(map(len, text.splitlines())) <= width
    assert ("2026-11-22 11:00" if by == ("hour",) else "2026-11-22 Sun") in text
    assert "$2.00" in text


@pytest.mark.parametrize(
    ("width", "heads"),
    [(60, "requests errors gaps tokens cost"), (50, "requests errors tokens cost"),
     (40, "requests tokens cost"), (30, "tokens cost"), (24, "cost")],
)  # fmt: skip
def test_a_narrow_terminal_loses_one_figure_after_the_other(report, width, heads):
    made = report([row(), unmetered(), refused()], by=("day",))
    assert shown(made, width).partition("─")[0].split()[-len(heads.split()) - 1 :] == ["day", *heads.split()]


def test_money_in_one_column_is_written_in_one_way(report):
    rows = [row("alice", cost=80_000 * 10**6), row("bob", cost=80_000 * 10**6), row("carol", cost=5)]
    text = shown(report(rows, by=("user",)))
    assert re.findall(r"<?\$[\d.]+k?", text) == ["$80.0k", "$80.0k", "<$1", "$160k"]


def test_bars_are_as_long_as_the_cost_is_high(report):
    rows = [
        row("alice", cost=4_000_000),
        row("bob", cost=2_000_000),
        row("carol", cost=1),
        row("dave", cost=0),
    ]
    text = shown(report(rows, by=("user",)))
    bars = {
        name: re.findall("[█▏▎▍▌▋▊▉]", lines_of(text, name)[0]) for name in ("alice", "bob", "carol", "dave")
    }
    assert [len(bars[name]) for name in bars] == [24, 12, 1, 0]


def test_bars_show_tokens_where_nothing_has_a_price(report):
    rows = [row("alice", cost=None), row("bob", cost=None, tokens=Tokens(1092, 0, 0, 0, 0))]
    text = shown(report(rows, by=("user",)), 120)
    assert len(re.findall("█", lines_of(text, "alice")[0])) == 2 * len(
        re.findall("█", lines_of(text, "bob")[0])
    )
    assert text.splitlines()[3].rstrip().endswith("tokens")


def test_a_long_name_is_cut_where_that_is_seen(report):
    text = shown(report([row("a" * 200, "model-one")], by=("user", "model")))
    [line] = lines_of(text, "model-one")
    assert re.match("a{25}… ", line)
    assert "a..." in shown(report([row("a" * 200)], by=("user",)), encoding="ascii")


def test_a_terminal_without_block_elements_gets_ascii(report):
    text = shown(report([row("alice", cost=2), row("bob")], by=("user",)), encoding="latin-1")
    assert text.isascii()
    assert lines_of(text, "bob")[0].endswith("#" * 24)
    assert "-" * 40 in text
    assert "|" not in text


def test_what_is_as_above_is_not_repeated(report):
    text = shown(report([row("alice", "m1", cost=2), row("alice", "m2")], by=("user", "model")))
    assert lines_of(text, "m2")[0].startswith("alice")
    assert lines_of(text, "m1")[0].startswith("   ")


def test_a_survey_sums_up_what_does_not_fit(report):
    rows = [row(f"user{number:02d}", f"m{number}", cost=10**6 * (number + 1)) for number in range(14)]
    text = shown(report(rows))
    assert len(lines_of(text, "user")) == 10 + 2  # the head, and the hint below
    assert lines_of(text, "4 others")[0].split()[-1] == "$10.00"
    assert "All of them: --by user, --by model." in text


def test_a_table_asked_for_is_whole_up_to_what_somebody_may_read(report):
    made = report([row(f"user{number:03d}") for number in range(520)], by=("user",))
    text = shown(made)
    assert len(lines_of(text, "user")) == 501
    assert lines_of(text, "20 others")
    assert "--csv" in text


def test_days_have_their_weekday(report):
    text = shown(report([row(ago_s=DAY_S)], by=("day",)))
    assert lines_of(text, "2026-11-21 Sat")
    [silent] = lines_of(text, "2026-11-22 Sun")
    assert "$" not in silent


def test_field_note_12_what_could_not_be_counted_is_explained(report):
    made = report([row(), unmetered(), unmetered(), row(model="homemade-1", cost=None)])
    text = " ".join(shown(made).split())
    assert "2 requests unmetered" in text
    assert "1 request unpriced. The model's price is not known (homemade-1)" in text
    assert "notional" in text


def test_a_report_of_nothing_says_so_and_where_there_is_something(report):
    rows = [row(ago_s=30 * DAY_S), row("b\x1bob", ago_s=30 * DAY_S)]
    for text in (shown(report(rows)), columns(report(rows))):
        assert "No requests from 2026-11-16 00:00 until now (UTC)." in text
        assert r"alice, b\x1bob" in text
    assert "There are some at other times" in columns(report(rows, user="alice"))


# A pipe


def test_columns_can_be_split_at_blanks(nasty):
    text = columns(nasty)
    assert text.replace("\n", "").isprintable()
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    assert {len(one) for one in rows} == {2 + len(HEADS)}
    assert len(rows) == len(NASTY) + 2
    assert rows[0] == ["user", "model", *HEADS]
    assert rows[-1][:3] == ["total", "-", str(len(NASTY))]
    names = {one[0] for one in rows}
    assert {"-", r"\x20", r"a\x20b", r"\x23remark", r"back\\slash", "x" * 255, "日本語モデル"} <= names


def test_columns_are_exact_and_aligned(report):
    rows = [
        row(tokens=Tokens(1_234_567, 0, 0, 0, 0), cost=1_234_567),
        row("bob", tokens=Tokens(1, 0, 0, 0, 0)),
    ]
    text = columns(report(rows, by=("user",)))
    assert "1234567" in text
    assert "1.234567" in text
    table = [line for line in text.splitlines() if line and not line.startswith("#")]
    ends = {tuple(match.end() for match in re.finditer(r"\S+", line))[1:] for line in table}
    assert len(ends) == 1


def test_a_pipe_gets_no_colour_and_no_box(report):
    text = columns(report([row(), unmetered()]))
    assert text.isascii()
    assert not re.search(r"[|+=]|--|\x1b", text)


# Programs


def test_json_holds_every_name_and_figure_as_it_is(nasty):
    text = as_json(nasty)
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    document = json.loads(text)
    assert {one["user"] for one in document["groups"]} == set(NASTY)
    assert {one["model"] for one in document["groups"]} == {f"m{name}" for name in NASTY}
    assert document["total"]["requests"] == len(NASTY)


@given(st.integers(0, 10**15 - 1))
def test_a_cost_in_json_is_exact(cost):
    sums = Sums(1, 0, 0, 0, Tokens(), MicroUsd(cost), 0, 0)
    made = Report(
        since_s=0.0, until_s=NOON, until_now=True, user=None, is_survey=False,
        tables=(table(("user",), [Group(("a",), sums)], until_s=NOON),),
    )  # fmt: skip
    assert round(json.loads(as_json(made))["total"]["cost_usd"] * 10**6) == cost
    [_, line] = csv.reader(io.StringIO(as_csv(made)))
    assert line[1 + HEADS.index("cost_usd")] == f"{cost // 10**6}.{cost % 10**6:06d}"


def test_json_says_which_time_it_is_about(report):
    document = json.loads(as_json(report([row()], by=("hour",), since_s=NOON - HOUR_S, user="alice")))
    assert (document["since"], document["until"]) == ("2026-11-22T11:00:00Z", "2026-11-22T12:00:00Z")
    assert (document["user"], document["by"]) == ("alice", ["hour"])
    assert [one["hour"] for one in document["groups"]] == ["2026-11-22T11"]


def test_csv_is_as_rfc_4180_has_it(nasty):
    text = as_csv(nasty)
    assert text.count("\r\n") == text.count("\n") == len(NASTY) + 1
    assert text.replace("\r\n", "").isprintable()
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    assert rows[0] == ["user", "model", *HEADS]
    assert {len(one) for one in rows} == {2 + len(HEADS)}
    assert {'quo"te', "com,ma", "a b", "back\\slash", "#remark", "日本語モデル"} <= {one[0] for one in rows}


def test_no_name_is_a_formula_in_a_spreadsheet(nasty):
    names = [name for one in list(csv.reader(io.StringIO(as_csv(nasty))))[1:] for name in one[:2]]
    assert "'=1+1" in names
    assert not [name for name in names if re.match(r"[=+\-@＝＋－＠\t\r]", name)]


def test_an_empty_report_is_a_whole_document(report):
    made = report([row(ago_s=30 * DAY_S)], by=("user",))
    document = json.loads(as_json(made))
    assert document["groups"] == []
    assert document["total"]["requests"] == 0
    assert as_csv(made) == ",".join(["user", *HEADS]) + "\r\n"


# What the documentation says


def rows_under(heading):
    section = DOCUMENT.partition(f"\n{heading}\n")[2]
    section = re.split(r"^##", section, maxsplit=1, flags=re.M)[0]
    return re.findall(r"^\| `([a-z0-9_.\[\]]+)` \| (?:number|string|bool|array|object)", section, re.M)


def members(value, path=""):
    if isinstance(value, dict):
        for name, one in value.items():
            yield from members(one, f"{path}.{name}" if path else name)
    else:
        yield path


def test_every_figure_and_member_of_the_json_is_documented(report):
    document = json.loads(as_json(report([row()], by=("user",))))
    assert set(rows_under("## What the figures say")) == set(members(document["total"]))
    assert document["groups"][0].keys() == {"user", *document["total"]}
    assert set(rows_under("### JSON")) == {"groups[]" if name == "groups" else name for name in document}


def test_every_column_of_the_csv_is_documented_in_its_place():
    section = DOCUMENT.partition("\n### CSV\n")[2].partition("\n## ")[0]
    sentence = section.partition("without a total:")[2].partition(", where")[0]
    assert re.findall(r"`(\w+)`", sentence) == ["by", *HEADS]


def test_the_documentation_shows_what_is_printed(report):
    rows = [
        row(user, model, ago_s=60 + day * DAY_S + number * 700, cost=None if model == "homemade-1" else cost,
            tokens=Tokens(700, 41_000, 2_600, 0, 900), provider=provider)
        for day in (0, 1, 2, 5, 6)
        for user, model, provider, cost, count in [
            ("alice", "claude-sonnet-5", "claude", 38_250, 31 - 3 * day),
            ("alice", "claude-opus-4-7", "claude", 187_400, 9),
            ("build-server", "gpt-5.1-codex", "chatgpt", 17_300, 22 + day),
            ("bob", "claude-sonnet-5", "claude", 41_000, 14 if day != 5 else 0),
            ("bob", "homemade-1", "claude", 0, 2),
        ]
        for number in range(count)
    ]  # fmt: skip
    rows += [unmetered("bob", ago_s=99), refused("alice", ago_s=99), refused("alice", ago_s=999, status=529)]
    [block] = re.findall(r"^```text\n(.*?)^```", DOCUMENT, re.M | re.S)
    text = shown(report(rows))
    assert block == "".join(f"{line.rstrip()}\n" for line in text.splitlines()), text
