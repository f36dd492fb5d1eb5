"""Looks for known vulnerabilities of what the lock files name.

Rule 1: a finding fails; that nobody could be asked does not. A build must not depend on
somebody else's server, so a network that is missing, or an index that does not know, is
told as NOT CHECKED, and never as "none found".

Rule 2: whatever else goes wrong fails too, because it would hide a finding.

    python scripts/release/audit.py LOCK… [-- OPTION_OF_PIP_AUDIT…]

Run with the Python of an environment that was made from ``requirements-release.lock``.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

# What pip-audit ends with where it reached nobody: its own sentence, or what its HTTP library raised.
_UNREACHED: Final = re.compile(
    r"Could not connect to|not redirecting properly"
    r"|requests\.exceptions\.(ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|HTTPError)"
    r"|pip_audit\._service\.interface\.(ConnectionError|ServiceError)"
)

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What an audit found.

    Attributes:
        checked: How many packages somebody knew something about.
        vulnerable: A sentence for each vulnerability.
        unchecked: Packages that the service knows nothing of.
        unreached: Why nobody could be asked at all, or None.
    """

    checked: int
    vulnerable: Sequence[str]
    unchecked: Sequence[str]
    unreached: str | None = None


class AuditError(Exception):
    """pip-audit failed, and not for want of a network."""


def audit(lock: str, options: Sequence[str]) -> Found:
    """Ask about every package of a lock file.

    Raises:
        AuditError: pip-audit failed for another reason than that it reached nobody.
    """
    command = [sys.executable, "-m", "pip_audit", "--requirement", lock, "--require-hashes", "--disable-pip"]
    form = ["--format", "json", "--progress-spinner", "off"]
    ran = subprocess.run(  # noqa: S603 - what a person typed
        [*command, *form, *options], capture_output=True, text=True, check=False
    )
    if ran.stdout.strip():
        return judged(json.loads(ran.stdout))
    last = ran.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    if _UNREACHED.search(ran.stderr):
        # The address in it is the operator's mirror's: what went wrong is told, not where.
        return Found(checked=0, vulnerable=(), unchecked=(), unreached=last[0].partition(":")[0])
    raise AuditError(f"pip-audit ended with {ran.returncode}: {last[0]}")


def judged(answer: Json) -> Found:
    """Return what pip-audit's JSON says."""
    vulnerable, unchecked, checked = [], [], 0
    for package in answer["dependencies"]:
        if "skip_reason" in package:
            unchecked.append(package["name"])
            continue
        checked += 1
        for each in package["vulns"]:
            mended = " or ".join(each["fix_versions"]) or "no version yet"
            vulnerable.append(f"{package['name']} {package['version']}: {each['id']}, mended by {mended}")
    return Found(checked=checked, vulnerable=vulnerable, unchecked=unchecked)


def main(arguments: Sequence[str]) -> int:
    """Audit lock files, say what was found, and return the exit code."""
    given = list(arguments)
    options = given[given.index("--") + 1 :] if "--" in given else []
    locks = given[: given.index("--")] if "--" in given else given
    code = 0
    for lock in locks:
        try:
            found = audit(lock, options)
        except AuditError as exc:
            print(f"{lock}: {exc}")
            code = 1
            continue
        for line in found.vulnerable:
            print(f"{lock}: VULNERABLE: {line}")
            code = 1
        if found.unreached is not None:
            print(f"{lock}: NOT CHECKED: nobody could be asked ({found.unreached})")
        if found.unchecked:
            print(f"{lock}: NOT CHECKED: the service does not know {', '.join(found.unchecked)}")
        if found.checked:
            known = len(found.vulnerable)
            print(f"{lock}: {found.checked} packages checked, {known} known vulnerabilities")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
