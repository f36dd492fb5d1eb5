"""What was found, said to a person and to a program."""

import json
from datetime import datetime
from typing import Final

import click

from ai_mux.check.examination import Examination, Examined
from ai_mux.storage.inspect import Level

_COLOURS: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}


def as_text(examination: Examination, *, colour: bool) -> str:
    """Return it for a person: one block for each thing that was looked at."""
    lines: list[str] = []
    files = {one.provider: str(one.file) for one in examination.credentials}
    about = None
    for name, finding in examination.findings:
        if name != about:
            lines += [*([""] if lines else []), f"{name}  {files.get(name, '')}".rstrip()]
            about = name
        level = f"{finding.level.value:<7}"
        lines.append(
            f"  {click.style(level, fg=_COLOURS[finding.level]) if colour else level}  {finding.text}"
        )
        if finding.mend is not None:
            lines.append(f"           mend it: {finding.mend}")
    return "\n".join([*lines, "", _verdict(examination), ""])


def _verdict(examination: Examination) -> str:
    levels = [finding.level for _, finding in examination.findings]
    errors, warnings = levels.count(Level.ERROR), levels.count(Level.WARNING)
    counts = [
        f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((errors, "error"), (warnings, "warning")) if n
    ]
    return f"{' and '.join(counts)}." if counts else "All is well."


def as_json(examination: Examination) -> str:
    """Return it for a program. The members are documented; more may come, and none goes."""
    document = {
        "ok": examination.is_ok,
        "findings": [
            {"about": about, "level": finding.level.value, "text": finding.text, "mend": finding.mend}
            for about, finding in examination.findings
        ],
        "credentials": [_described(one) for one in examination.credentials],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _described(one: Examined) -> dict[str, object]:
    credential, kind = one.inspection.credential, one.inspection.kind
    return {
        "provider": one.provider,
        "file": str(one.file),
        "kind": None if kind is None else kind.value,
        "account": None if credential is None else credential.owner,
        "plan": None if credential is None else credential.plan,
        "fresh_until": None if credential is None else _iso(credential.expires_at),
        "renewable": credential is not None and credential.refresh is not None,
    }


def _iso(at: float | None) -> str | None:
    """Return RFC 3339 in the local zone, or None where there is no such time."""
    try:
        return None if at is None else datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return None
