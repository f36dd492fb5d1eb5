"""Says what a release is made of: a bill of materials (CycloneDX) and a list of licences.

Rule 1: both tell what is installed beside the wheel from ``requirements.lock``, and
needed to run it: what builds it is left out.

Rule 2: no addresses. Where a package comes from is the business of whoever installs
it, and their mirror's name is nobody else's. Names and versions identify a package.

Rule 3: every package has a version and a licence, or there is no bill.

    cyclonedx-py environment PYTHON | python scripts/release/materials.py DIRECTORY SITE_PACKAGES

``SITE_PACKAGES`` are those of PYTHON. Run in an environment that was made from
``requirements-release.lock``, with the same version of Python.
"""

import json
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROGRAM: Final = "ai-mux"
BILL: Final = "ai-mux.cdx.json"
LICENCES: Final = "LICENCES.txt"

_CLASSIFIER: Final = "License :: OSI Approved :: "
# What may hold an address, and says nothing that name and version do not.
_ADDRESSES: Final = frozenset({"externalReferences", "url", "download_url", "vcs_url", "repository_url"})

Json = Any


def needed(requirements: Mapping[str, list[Requirement]]) -> dict[str, list[str]]:
    """Return everything that the program needs here, itself first, and what each of these needs in turn.

    Bills of environments also name what only a package's own developers need: an extra
    counts as soon as it happens to be installed. So the markers are judged here.

    Args:
        requirements: What each installed distribution says, by canonical name.

    Raises:
        KeyError: Something needed is not installed.
    """
    needs: dict[str, list[str]] = {}
    extras: dict[str, set[str]] = {PROGRAM: {""}}
    waiting = [PROGRAM]
    while waiting:
        name = waiting.pop()
        here = [
            each
            for each in requirements[name]
            if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in extras[name])
        ]
        needs[name] = sorted({canonicalize_name(each.name) for each in here})
        for each in here:
            other = canonicalize_name(each.name)
            wanted = {"", *each.extras}
            if not wanted <= extras.get(other, set()):
                extras[other] = extras.get(other, set()) | wanted
                waiting.append(other)
    return needs


def bill_of(environment: Json, needs: Mapping[str, list[str]]) -> Json:
    """Return the program's bill of materials.

    Args:
        environment: The bill of an environment in which it is installed, as cyclonedx-py makes it.
        needs: What ``needed`` returned for that environment.

    Raises:
        ValueError: A package says no licence or no version.
    """
    found = {str(canonicalize_name(each["name"])): each for each in environment["components"]}
    for name in needs:
        if not found[name].get("version") or not licence_of(found[name]):
            raise ValueError(f"{name} says no version or no licence")
    tree = [
        {"ref": found[name]["bom-ref"], "dependsOn": [found[other]["bom-ref"] for other in needs[name]]}
        for name in sorted(needs)
    ]
    return _without_addresses(
        environment
        | {
            "metadata": environment["metadata"] | {"component": found[PROGRAM] | {"type": "application"}},
            "components": [found[name] for name in sorted(needs) if name != PROGRAM],
            "dependencies": tree,
        }
    )


def licence_of(component: Json) -> str:
    """Return a component's licence, an SPDX expression where the package has one; empty if it says none."""
    said = []
    for each in component.get("licenses", []):
        licence = each.get("license", {})
        said.append(each.get("expression") or licence.get("id") or licence.get("name") or "")
    return ", ".join(licence.removeprefix(_CLASSIFIER) for licence in said if licence)


def licences(bill: Json) -> str:
    """Return the list of licences: name, version and licence, a line each."""
    rows = [(each["name"], each["version"], licence_of(each)) for each in bill["components"]]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = (f"{name:{widths[0]}}  {version:{widths[1]}}  {licence}\n" for name, version, licence in rows)
    itself = bill["metadata"]["component"]
    return (
        f"What {itself['name']} {itself['version']} ({licence_of(itself)}) needs to run, and under which "
        "licences, as each\npackage says itself. Their texts come with the packages.\n\n" + "".join(lines)
    )


def _without_addresses(part: Json) -> Json:
    if isinstance(part, list):
        return [_without_addresses(each) for each in part]
    if not isinstance(part, dict):
        return part
    kept = {name: _without_addresses(each) for name, each in part.items() if name not in _ADDRESSES}
    if "purl" in kept:
        # Behind the version stand an index's or a file's address, where there is one.
        kept["purl"] = kept["purl"].partition("?")[0].partition("#")[0]
    return kept


if __name__ == "__main__":
    into, site_packages = Path(sys.argv[1]), sys.argv[2]
    said = {
        str(canonicalize_name(each.name)): [Requirement(line) for line in each.requires or []]
        for each in distributions(path=[site_packages])
    }
    made = bill_of(json.load(sys.stdin), needed(said))
    text = json.dumps(made, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    schema = JsonStrictValidator(SchemaVersion.from_version(made["specVersion"]))
    if (wrong := schema.validate_str(text)) is not None:
        sys.exit(f"not a valid bill of materials: {wrong}")
    (into / BILL).write_text(text, encoding="utf-8")
    (into / LICENCES).write_text(licences(made), encoding="utf-8")
