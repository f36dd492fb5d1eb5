"""What the audit log says of a request: all of its row, or less where it has none; always in one order."""

from fakes.books import KeptRows, books
from fakes.clock import FakeClock

from ai_mux.logs import Log
from ai_mux.usage.accounting import Accounting
from ai_mux.usage.tally import NOTHING_READ, Reading, Tokens


class KeptLines:
    """An audit log without a file."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def put(self, fields) -> None:
        self.lines.append(dict(fields))


def audited() -> tuple[Accounting, list[dict[str, object]]]:
    clock, kept = FakeClock(), KeptLines()
    accounting = books(KeptRows(), clock=clock, log=Log(level="debug", write=len, clock=clock))
    accounting.audit = kept  # type: ignore[assignment]
    return accounting, kept.lines


USUAL = {
    "request_id": "req_made_up",
    "user": "alice",
    "path": "/claude/v1/messages",
    "status": 200,
    "bytes_in": 400,
    "bytes_out": 3200,
    "head_ms": 12.34,
    "total_ms": 56.78,
    "end": "done",
    "remote": "127.0.0.1",
    "method": b"POST",
}
FOR_A_PROVIDER = {"lease": None, "credential": "claude:login", "provider": "claude", "model": ""}


def test_a_request_for_a_provider_is_told_with_all_of_its_row():
    accounting, lines = audited()
    reading = Reading(Tokens(7, 6, 5, 4, 3), "whole", "claude-sonnet-4-5")
    accounting.enter(**USUAL, **FOR_A_PROVIDER, reading=reading)
    [line] = lines
    assert list(line.items()) == [
        ("request_id", "req_made_up"),
        ("remote", "127.0.0.1"),
        ("method", "POST"),
        ("path", "/claude/v1/messages"),
        ("user", "alice"),
        ("provider", "claude"),
        ("credential", "claude:login"),
        ("model", "claude-sonnet-4-5"),
        ("status", 200),
        ("end", "done"),
        ("metering", "whole"),
        (
            "tokens",
            {"input": 7, "cache_read": 6, "cache_write_5m": 5, "cache_write_1h": 4, "output": 3},
        ),
        ("cost_microusd", 111),  # 7 × 3 + 6 × 0.3 + 5 × 3.75 + 4 × 6 + 3 × 15, rounded
        ("bytes_in", 400),
        ("bytes_out", 3200),
        ("head_ms", 12.3),
        ("total_ms", 56.8),
    ]


def test_a_request_without_a_row_is_told_without_what_rows_are_for():
    accounting, lines = audited()
    accounting.note(**USUAL | {"user": "", "path": "/" + "x" * 300, "status": 404, "method": b"G\xc9T"})
    [line] = lines
    assert list(line.items()) == [
        ("request_id", "req_made_up"),
        ("remote", "127.0.0.1"),
        ("method", "GÉT"),
        ("path", "/" + "x" * 255),
        ("user", None),
        ("status", 404),
        ("end", "done"),
        ("bytes_in", 400),
        ("bytes_out", 3200),
        ("head_ms", 12.3),
        ("total_ms", 56.8),
    ]


def test_what_is_not_known_is_told_as_nothing():
    accounting, lines = audited()
    unknown = {"status": 0, "head_ms": None, "end": "left"}
    accounting.enter(**USUAL | unknown, **FOR_A_PROVIDER, reading=NOTHING_READ)
    accounting.note(**USUAL | unknown)
    for line in lines:
        assert (line["status"], line["head_ms"], line["user"]) == (None, None, "alice")
    assert (lines[0]["model"], lines[0]["cost_microusd"]) == (None, None)
