"""The events of what counts and keeps stand in the reference, with their levels."""

import re

from documents import ROOT

AREAS = "ledger|limits|accounting|audit|admin"
LOGGED = re.compile(rf'log\.(info|warning|error)\(\s*"((?:{AREAS})\.[a-z_]+)"')
ROW = re.compile(rf"^\| `((?:{AREAS})\.[a-z_]+)` \| (info|warn|error) \|", re.M)


def test_every_event_is_in_the_reference_and_nothing_else():
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    logged = {event: level.removesuffix("ing") for level, event in LOGGED.findall(source)}
    documented = dict(ROW.findall((ROOT / "docs" / "configuration.en.md").read_text()))
    assert documented == logged
    assert len(logged) > 10
