"""Every event of the log stands in its reference, with its levels, and nothing else does."""

import ast
import re

from documents import ROOT

from ai_mux.credentials.standing import State
from ai_mux.logs.lines import REQUEST_FIELDS

DOCUMENT = (ROOT / "docs" / "reference" / "log.md").read_text()
LEVELS = {"debug": "debug", "info": "info", "warning": "warn", "error": "error"}
LEVELS |= {"passing": "warn", "lasting": "error"}  # a credential's troubles
LOGS = {"log", "_log", "notices", "_notices"}
EVENT = re.compile(r"[a-z]+(?:\.[a-z_]+)?")

# What is not a name in one place: these states have an event each, and these two write lines themselves.
OF_STATES = {f"credential.{state.value}" for state in (State.MISSING, State.BLANK)}
BY_THEMSELVES = {"request.done": {"info"}, "log.dropped": {"warn"}}


def logged():
    """Return the events in the source, each with its levels."""
    found = {name: set(levels) for name, levels in BY_THEMSELVES.items()}
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and (levels := levels_of(node.func)):
                for event in events(node.args[0]):
                    found.setdefault(event, set()).update(levels)
    return found


def levels_of(called):
    if isinstance(called, ast.Attribute) and called.attr in LEVELS:
        log = called.value
        name = log.attr if isinstance(log, ast.Attribute) else getattr(log, "id", "")
        return {LEVELS[called.attr]} if name in LOGS else set()
    # A log's method that was chosen before.
    return {"debug", "error"} if isinstance(called, ast.Name) and called.id == "log" else set()


def events(argument):
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return {argument.value}
    if isinstance(argument, ast.JoinedStr):
        assert ast.unparse(argument) == "f'credential.{state.value}'"
        return OF_STATES
    return set()


def test_every_event_is_in_the_reference_and_nothing_else():
    rows = re.findall(r"^\| `([a-z]+(?:\.[a-z_]+)?)` \| ((?:debug|info|warn|error|, )+) \|", DOCUMENT, re.M)
    documented = {event: set(levels.split(", ")) for event, levels in rows}
    assert documented == logged()
    assert len(documented) > 50
    assert all(EVENT.fullmatch(event) for event in documented)


def test_the_fields_of_a_request_are_in_the_reference():
    table = DOCUMENT.partition("| Field |")[2].partition("\n\n")[0]
    told = re.findall(r"`([a-z_]+)`", "".join(row.split("|")[1] for row in table.splitlines()[2:]))
    assert {"ts", "level", "event", *told} == set(REQUEST_FIELDS)
