"""Wheel and source distribution: the same bytes from any place at any time, and nothing private in them."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from documents import ROOT
from release_scripts import script

distributions = script("distributions")
# What may lie in a working tree, and is nobody else's.
PRIVATE = (
    ".cache/clients/x",
    ".venv/x",
    "docs/dev/x.md",
    "config.yaml",
    "token.txt",
    ".env",
    "src/ai_mux/a.pyc",
)
LEFT_OUT = (".gitattributes", "docs/dev/")
# Directories of a working tree that are large, and ignored.
BESIDE = {".git", ".venv", "__pycache__", ".hypothesis", "dist", "build", "node_modules", "results"}


def beside(directory, names):
    """Return which of a directory's names are such directories."""
    return [
        name
        for name in names
        if (name in BESIDE or name.endswith("cache")) and os.path.isdir(f"{directory}/{name}")  # noqa: PTH112
    ]


def tree(place):
    """Lay out a working tree, with what does not belong to the project too."""
    shutil.copytree(ROOT, place, ignore=beside)
    for name in PRIVATE:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("made-up-private-words")
    return place


def built(source, into, *, umask=0o022, **environment):
    """Build as the release does; return the digest of each file."""
    script = source / "scripts" / "release" / "distributions.py"
    env = {"PATH": os.environ["PATH"], "HOME": str(into.parent)} | environment
    subprocess.run(
        [sys.executable, script, into], cwd=into.parent, env=env, umask=umask, check=True, timeout=60
    )
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in into.iterdir()}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A tree, what was built from it, and the digests."""
    place = tmp_path_factory.mktemp("here")
    source = tree(place / "tree")
    return source, place / "dist", built(source, place / "dist")


@pytest.fixture(scope="module")
def packed(here):
    """The files of the source distribution: their names in the project."""
    with tarfile.open(next(here[1].glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_another_directory_time_zone_and_umask_give_the_same_bytes(here, tmp_path):
    source = tree(tmp_path / "else where" / "much" / "deeper")
    for path in source.rglob("*"):
        if path.is_file():
            path.chmod(0o700 if os.access(path, os.X_OK) else 0o600)
            os.utime(path, (1_900_000_000, 1_900_000_000))
    elsewhere = built(
        source, tmp_path / "dist", umask=0o077, TZ="Asia/Tokyo", LC_ALL="C", SOURCE_DATE_EPOCH="1900000000"
    )
    assert elsewhere == here[2]
    assert len(elsewhere) == 2


def test_the_source_distribution_gives_itself_and_the_same_wheel(here, tmp_path):
    distributions.unpack(next(here[1].glob("*.tar.gz")), tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert built(source, tmp_path / "dist") == here[2]


def test_of_a_checkout_what_is_committed_is_built_and_nothing_else(needed, here, tmp_path):
    git = needed("git")
    source = tree(tmp_path / "checkout")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        who = ["-c", "user.name=made-up", "-c", "user.email=made-up@example.invalid"]
        subprocess.run([git, *who, *command], cwd=source, check=True, capture_output=True, timeout=60)
    (source / "src" / "ai_mux" / "app.py").write_text("raise SystemExit('half done')\n")
    (source / "docs" / "not-committed.md").write_text("made-up-private-words")
    assert built(source, tmp_path / "dist") == here[2]


def test_of_anybodys_settings_for_git_none_counts_and_the_checkouts_own_run_nothing(
    needed, tmp_path, monkeypatch
):
    git, checkout, ran = needed("git"), tmp_path / "checkout", tmp_path / "ran"
    checkout.mkdir()
    (checkout / "two lines").write_bytes(b"one\ntwo\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "All"]):
        who = ["-c", "user.name=made-up", "-c", "user.email=made-up@example.invalid"]
        subprocess.run([git, *who, *command], cwd=checkout, check=True, capture_output=True, timeout=60)
    monitor = tmp_path / "monitor"
    monitor.write_text(f"#!/bin/sh\necho monitor >> '{ran}'\n")
    monitor.chmod(0o755)
    shutil.copy(monitor, checkout / ".git" / "hooks" / "post-index-change")
    for setting in (["core.fsmonitor", monitor], ["core.autocrlf", "true"]):
        subprocess.run([git, "config", *setting], cwd=checkout, check=True, timeout=60)
    os.utime(checkout / "two lines", (1_900_000_000, 1_900_000_000))  # so that git has to look at it again
    attributes = tmp_path / "git" / "attributes"
    attributes.parent.mkdir()
    attributes.write_text("* text eol=crlf\n")
    settings = tmp_path / "settings"
    settings.write_text("[core]\n\tautocrlf = true\n\teol = crlf\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    (into := tmp_path / "into").mkdir()
    source = distributions.committed(checkout, into)

    assert (source / "two lines").read_bytes() == b"one\ntwo\n"
    assert not ran.exists()


def test_it_can_be_unpacked_by_a_python_that_knows_no_filters_yet(here, tmp_path, monkeypatch):
    # As 3.11.2, which is Debian 12's; on a Python like that every test above tries it.
    if hasattr(tarfile, "data_filter"):
        trusted, extractall = tarfile.fully_trusted_filter, tarfile.TarFile.extractall

        def without(archive, path=".", members=None, *, numeric_owner=False):
            extractall(archive, path, members, numeric_owner=numeric_owner, filter=trusted)

        monkeypatch.setattr(tarfile.TarFile, "extractall", without)
        monkeypatch.delattr(tarfile, "data_filter")
    distributions.unpack(next(here[1].glob("*.tar.gz")), tmp_path / "unpacked")
    assert [*tmp_path.glob("unpacked/*/pyproject.toml")]


def test_nothing_private_is_in_either(here, packed):
    assert not packed & {*PRIVATE}
    assert not [name for name in packed if name.startswith((".venv", ".cache", ".git/", *LEFT_OUT))]
    for file in here[1].iterdir():
        if file.suffix == ".whl":
            with zipfile.ZipFile(file) as archive:
                content = b"".join(archive.read(name) for name in archive.namelist())
        else:
            with tarfile.open(file) as archive:
                content = b"".join(archive.extractfile(each).read() for each in archive if each.isfile())
        # In this file they stand in two pieces.
        assert ("made-up-" + "private-words").encode() not in content.replace(_here(), b"")
        assert str(here[0]).encode() not in content


def test_every_file_of_the_project_is_in_the_source_distribution(needed, packed):
    if not (ROOT / ".git").exists():
        pytest.skip("no history here: the tree is a source distribution already")
    listed = subprocess.run(
        [needed("git"), "-c", f"safe.directory={ROOT}", "ls-files"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    ours = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}
    missing = {name for name in ours - packed if not name.startswith(LEFT_OUT)}
    assert missing == set(), "say in pyproject.toml, under targets.sdist, whether it belongs there"


def test_the_tests_are_found_and_the_documents_hold_in_the_source_distribution(here, tmp_path):
    distributions.unpack(next(here[1].glob("*.tar.gz")), tmp_path)
    (source,) = tmp_path.iterdir()
    pytest_here = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    for arguments in (["--collect-only", "-q", "tests"], ["tests/test_readme.py", "tests/test_scripts.py"]):
        ran = subprocess.run(
            [*pytest_here, *arguments], cwd=source, capture_output=True, text=True, timeout=120, check=False
        )
        assert ran.returncode == 0, ran.stdout[-3000:]


def test_the_wheel_has_licence_prices_types_man_page_and_completions(here):
    (wheel,) = here[1].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
    for end in (
        "/licenses/LICENSE",
        "ai_mux/usage/prices.toml",
        "ai_mux/py.typed",
        "/data/share/man/man1/ai-mux.1",
        "/data/share/bash-completion/completions/ai-mux",
        "/data/share/zsh/site-functions/_ai-mux",
        "/data/share/fish/vendor_completions.d/ai-mux.fish",
    ):
        assert [name for name in names if name.endswith(end)], end
    assert not [name for name in names if name.startswith(("tests/", "docs/", "scripts/"))]
    for minor in (11, 12, 13, 14):
        assert f"Classifier: Programming Language :: Python :: 3.{minor}\n" in metadata


def _here():
    """Return this file as it is in the archive: it has the words itself."""
    return (ROOT / "tests" / "packaging" / "test_release_distributions.py").read_bytes()
