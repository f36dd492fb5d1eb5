"""The lock files: the commands in CONTRIBUTING.md write each, and none says where packages come from."""

import re
import tomllib

import pytest
from documents import ROOT

LOCKS = sorted(path.name for path in ROOT.glob("requirements*.lock"))
WRITTEN = re.findall(
    r"^\S*\$.*--output-file (\S+\.lock)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M
)


def test_each_lock_file_is_written_by_a_command():
    assert sorted(WRITTEN) == LOCKS


def test_each_group_of_dependencies_is_locked_by_a_command():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    commands = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--group (\w+)", commands)) == set(groups)


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_one_version_and_hashes_and_no_address(name):
    lock = (ROOT / name).read_text()
    assert "://" not in lock
    assert "index" not in lock
    packages = re.findall(r"^[\w.-]+==\S+(?: ; [^\\]+)? \\\n    --hash=sha256:[0-9a-f]{64}", lock, re.M)
    assert len(packages) == len(re.findall(r"^\w", lock, re.M)) > 10
