"""Builds the wheel and the source distribution, to the same bytes wherever and whenever that happens.

Rule 1: what is built is what is committed. Whatever else lies in a working tree
stays out. Unpacked from a source distribution there is no history, and the tree
itself is taken; it holds nothing else.

Rule 2: the wheel is built from the source distribution, so that it is known to
suffice.

Rule 3: nothing of this machine goes in. Hatchling sorts the files and levels their
modes; the time in both archives is its own fixed one, because a commit's would be
lost in the source distribution. The bytes still depend on hatchling's version, which
is locked, and on zlib's, which comes with Python.

    python scripts/release/distributions.py DIRECTORY
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
_SETTINGS: Final = (
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.eol=lf",
    f"core.attributesFile={os.devnull}",
)
_NOBODYS: Final = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
}


def build(source: Path, into: Path, *, scratch: Path) -> None:
    """Build both from a tree.

    Args:
        source: The tree. Only what ``pyproject.toml`` names is taken.
        into: Where both are put.
        scratch: An empty directory.

    Raises:
        subprocess.CalledProcessError: Hatchling could not; it has said why.
    """
    _hatchling("sdist", source, into)
    (packed,) = into.glob("*.tar.gz")
    unpack(packed, scratch)
    (unpacked,) = scratch.iterdir()
    _hatchling("wheel", unpacked, into)


def committed(root: Path, into: Path) -> Path:
    """Return a tree of what is committed, laid out in ``into``; without a history, the tree itself."""
    if not (root / ".git").exists():
        return root
    if _git(root, "status", "--porcelain").strip():
        print("What is not committed is left out.", file=sys.stderr)
    packed = into / "committed.tar"
    packed.write_bytes(_git(root, "archive", "--format=tar", "HEAD"))
    source = into / "committed"
    unpack(packed, source)
    return source


def unpack(packed: Path, into: Path) -> None:
    """Unpack a tar archive of our own."""
    with tarfile.open(packed) as archive:
        # Debian 12's Python is 3.11.2, and filters came with 3.11.4. Before, nobody looks at this attribute.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(into)  # noqa: S202 - made by git or by hatchling a moment ago


def _hatchling(target: str, source: Path, into: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory"]
    subprocess.run(  # noqa: S603 - our own tree, by the locked backend
        [*command, str(into.resolve())], cwd=source, env=environment, stdout=subprocess.DEVNULL, check=True
    )


def _git(root: Path, *arguments: str) -> bytes:
    # A checkout that another user made is read all the same. What "status" would run is not run: a monitor,
    # or a hook when it writes the index. Filters of the checkout's own configuration are; but the build runs
    # what is committed there, so whoever made it is trusted. Settings of somebody's own, or of the machine,
    # would change the bytes: line ends, attributes.
    command = ["git", "--no-optional-locks"]
    for setting in (f"safe.directory={root}", *_SETTINGS):
        command += ["-c", setting]
    environment = os.environ | _NOBODYS
    return subprocess.run(  # noqa: S603 - git, as set here
        [*command, *arguments], cwd=root, env=environment, capture_output=True, check=True
    ).stdout


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as aside:
        (unpacked_in := Path(aside) / "unpacked").mkdir()
        build(committed(ROOT, Path(aside)), target, scratch=unpacked_in)
