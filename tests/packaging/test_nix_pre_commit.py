"""nix/pre-commit and what links it, in a repository of its own, with real git and ruff."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT
from nix_evaluation import Nix

HOOK = ROOT / "nix" / "pre-commit"
# Writes down what it was asked, and is content or not.
STAND_IN = '#!/bin/sh\necho "$(basename "$0") $*" >> "$SEEN"\n! grep -qx "$(basename "$0")" "$FINDS"\n'


class Repository:
    """A repository with the hook, and a commit under way."""

    def __init__(self, directory, path):
        self.directory = directory
        self.seen = directory.parent / "seen"
        self.finds = directory.parent / "finds"
        self.finds.touch()
        self.seen.touch()
        self._environment = {
            "PATH": path,
            "HOME": str(directory.parent),
            "SEEN": str(self.seen),
            "FINDS": str(self.finds),
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        for name in ("AUTHOR", "COMMITTER"):
            self._environment |= {f"GIT_{name}_NAME": "nobody", f"GIT_{name}_EMAIL": "nobody@example.invalid"}
        self.git("init", "-q")

    def git(self, *arguments, check=True):
        return subprocess.run(
            ["git", *arguments], cwd=self.directory, env=self._environment, check=check, capture_output=True,
            text=True, timeout=60,
        )  # fmt: skip

    def write(self, name, text):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self):
        return self.git("commit", "-m", "Try it", check=False)

    def shell(self, hook):
        """Enter the development shell, as far as its own script goes."""
        return subprocess.run(
            ["bash", "-euc", hook],
            cwd=self.directory,
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        )


@pytest.fixture
def repository(needed, tmp_path):
    needed("git")
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("nixfmt", "prettier", "python"):
        (commands / name).write_text(STAND_IN)
        (commands / name).chmod(0o755)
    (commands / "ruff").symlink_to(Path(sys.executable).parent / "ruff")
    for name in ("git", "bash", "sh", "grep", "basename", "env", "dirname", "ln", "mkdir"):
        (commands / name).symlink_to(shutil.which(name))
    (tmp_path / "work").mkdir()
    made = Repository(tmp_path / "work", str(commands))
    made.write("nix/pre-commit", HOOK.read_text())
    (made.directory / "nix/pre-commit").chmod(0o755)
    return made


@pytest.fixture
def hooked(repository):
    hook = repository.directory / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.symlink_to(repository.directory / "nix" / "pre-commit")
    return repository


def test_each_staged_file_is_looked_at_by_its_own_tool(hooked):
    hooked.write("a b.py", "A = 1\n")
    hooked.write("flake.nix", "{ }\n")
    hooked.write("docs/page.md", "# Page\n")
    hooked.write("config.yaml", "a: 1\n")
    hooked.write("unstaged.nix", "{ }\n")
    hooked.git("add", "a b.py", "flake.nix", "docs", "config.yaml")
    done = hooked.commit()
    assert done.returncode == 0, done.stderr
    seen = hooked.seen.read_text().splitlines()
    assert seen[0] == "nixfmt --check flake.nix"
    assert seen[1] == "prettier --check --ignore-unknown config.yaml docs/page.md"
    assert seen[2].startswith("python -m pytest ")
    assert len(seen) == 3


def test_what_is_not_touched_is_not_looked_at(hooked):
    hooked.write("notes.txt", "nothing\n")
    hooked.git("add", "notes.txt")
    assert hooked.commit().returncode == 0
    assert hooked.seen.read_text() == ""


@pytest.mark.parametrize(
    ("name", "text", "finds", "said"),
    [
        ("bad.py", "A  =  1\n", "", "format"),
        ("bad.py", "import os\n", "", "lint"),
        ("good.py", "A = 1\n", "python", "tests"),
        ("flake.nix", "{ }\n", "nixfmt", "nixfmt"),
        ("a.json", "{}\n", "prettier", "prettier"),
    ],
)
def test_what_is_found_keeps_the_commit_back_and_is_named(hooked, name, text, finds, said):
    hooked.finds.write_text(f"{finds}\n")
    hooked.write(name, text)
    hooked.git("add", name)
    done = hooked.commit()
    assert done.returncode != 0
    assert f"not committed: {said}" in done.stderr.splitlines()
    assert hooked.git("log", check=False).returncode != 0
    # Nothing was changed behind anybody's back.
    assert (hooked.directory / name).read_text() == text


def test_a_missing_tool_is_no_silent_pass(hooked):
    (hooked.directory.parent / "bin" / "nixfmt").unlink()
    hooked.write("flake.nix", "{ }\n")
    hooked.git("add", "flake.nix")
    done = hooked.commit()
    assert done.returncode != 0
    assert "nixfmt is missing" in done.stderr


def test_the_tests_that_are_run_exist():
    named = [word for word in HOOK.read_text().split() if word.startswith("tests/")]
    assert named and all((ROOT / path).exists() for path in named)
    assert os.access(HOOK, os.X_OK)


def test_the_development_shell_links_the_hook_and_leaves_another_one_alone(needed, repository, tmp_path):
    (tmp_path / "nix").mkdir()
    nix = Nix(program=needed("nix-instantiate"), directory=tmp_path / "nix")
    script = nix.evaluate("flake.devShells.x86_64-linux.default.args.shellHook")
    hook = repository.directory / ".git" / "hooks" / "pre-commit"
    assert "pre-commit" in repository.shell(script).stdout
    assert hook.resolve() == repository.directory / "nix" / "pre-commit"
    assert repository.shell(script).stdout == ""
    hook.unlink()
    hook.write_text("somebody's own")
    assert repository.shell(script).stdout == ""
    assert hook.read_text() == "somebody's own"
