"""What a checkout sends to an engine: all of it, but for what .dockerignore keeps out.

Rules as Docker's reference has them: patterns in order, the last that fits decides, ``!`` lets
in again, a directory stands for what is in it, ``**`` for any number of directories.
"""

import re
import shutil
from pathlib import Path


def sent(checkout: Path, names: list[str]) -> list[str]:
    """Return which of these files, named from the checkout, an engine is sent."""
    rules = []
    for line in (checkout / ".dockerignore").read_text(encoding="utf-8").splitlines():
        if pattern := line.partition("#")[0].strip():
            rules.append((not pattern.startswith("!"), _fits(pattern.lstrip("!"))))
    return [name for name in names if not _kept_out(name, rules)]


def send(checkout: Path, names: list[str], into: Path) -> None:
    """Copy what an engine would be sent into a directory."""
    for name in sent(checkout, names):
        if (checkout / name).is_file():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(checkout / name, into / name)


def _kept_out(name: str, rules: list[tuple[bool, re.Pattern[str]]]) -> bool:
    out = False
    for keeps_out, fits in rules:
        if fits.fullmatch(name):
            out = keeps_out
    return out


def _fits(pattern: str) -> re.Pattern[str]:
    parts = []
    for part in pattern.strip("/").split("/"):
        parts.append("(?:.*/)?" if part == "**" else re.escape(part).replace(r"\*", "[^/]*") + "/")
    return re.compile("".join(parts).removesuffix("/") + "(?:/.*)?")
