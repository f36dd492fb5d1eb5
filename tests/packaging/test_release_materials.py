"""The bill of materials and the list of licences: all that is needed to run, and no addresses."""

import hashlib
import json
import re
import subprocess

import pytest
from documents import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from release_scripts import RELEASE_PYTHON, SCRIPTS

# In requirements.lock because they build the project; nothing of them runs.
BUILD_ONLY = {"hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers"}


@pytest.fixture(scope="module")
def release(needed, tmp_path_factory):
    """A release, as one command makes it. Its environments take a minute, so they are used again only."""
    needed(str(RELEASE_PYTHON))
    into = tmp_path_factory.mktemp("release") / "dist"
    subprocess.run([SCRIPTS / "build", into], check=True, capture_output=True, timeout=300)
    return into


@pytest.fixture(scope="module")
def bill(release):
    return json.loads((release / "ai-mux.cdx.json").read_text())


@pytest.fixture(scope="module")
def locked():
    """Name and version of what the lock installs here."""
    lines = re.findall(r"^([\w.-]+==\S+(?: ; [^\\]+)?)", (ROOT / "requirements.lock").read_text(), re.M)
    here = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate()]
    return {canonicalize_name(each.name): str(each.specifier).removeprefix("==") for each in here}


def test_one_command_leaves_wheel_source_bill_licences_and_sums(release):
    names = sorted(file.name for file in release.iterdir())
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    files = ["ai-mux.cdx.json", f"ai_mux-{version}-py3-none-any.whl", f"ai_mux-{version}.tar.gz"]
    assert names == ["LICENCES.txt", "SHA256SUMS", *files]
    summed = dict(reversed(line.split("  ")) for line in (release / "SHA256SUMS").read_text().splitlines())
    assert set(summed) == {*names} - {"SHA256SUMS"}
    for name, digest in summed.items():
        assert hashlib.sha256((release / name).read_bytes()).hexdigest() == digest


def test_the_bill_has_every_locked_package_that_runs_with_version_and_licence(bill, locked):
    listed = {canonicalize_name(each["name"]): each["version"] for each in bill["components"]}
    assert listed == {name: version for name, version in locked.items() if name not in BUILD_ONLY}
    assert set(locked) >= BUILD_ONLY
    for each in bill["components"]:
        assert each["licenses"], each["name"]
    assert bill["metadata"]["component"]["name"] == "ai-mux"
    assert bill["metadata"]["component"]["licenses"]


def test_the_bill_says_what_needs_what(bill):
    refs = {each["bom-ref"] for each in [bill["metadata"]["component"], *bill["components"]]}
    needs = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    assert set(needs) == refs
    assert {each for those in needs.values() for each in those} == refs - {
        bill["metadata"]["component"]["bom-ref"]
    }


def test_the_list_of_licences_has_a_line_for_each(release, bill):
    lines = [line.split("  ") for line in (release / "LICENCES.txt").read_text().splitlines() if "  " in line]
    told = {(words[0], [word for word in words if word][1].strip()): words[-1].strip() for words in lines}
    assert set(told) == {(each["name"], each["version"]) for each in bill["components"]}
    assert all(told.values())


def test_neither_holds_an_address_or_a_path_of_this_machine(release):
    for name in ("ai-mux.cdx.json", "LICENCES.txt"):
        text = (release / name).read_text()
        text = re.sub(r'"\$schema": "http://cyclonedx.org/schema/bom-[\d.]+.schema.json"', "", text)
        assert "://" not in text
        assert "externalReferences" not in text
        assert str(ROOT) not in text


def test_the_bill_is_the_same_each_time(release, tmp_path):
    subprocess.run([SCRIPTS / "build", tmp_path / "again"], check=True, capture_output=True, timeout=300)
    assert (tmp_path / "again" / "SHA256SUMS").read_text() == (release / "SHA256SUMS").read_text()


def test_a_directory_that_holds_something_is_left_alone(release, tmp_path):
    (tmp_path / "mine").touch()
    ran = subprocess.run(
        [SCRIPTS / "build", tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 1
    assert "is not empty" in ran.stderr
    assert (tmp_path / "mine").exists()
