"""Reads the small files that a configuration names, and looks at who else can.

Every read is bounded, and what cannot be read becomes one sentence. Messages do
not repeat the path: somebody may have written a token where its file's name belongs.
"""

import os
import stat
from pathlib import Path
from typing import Final

from ai_mux.config.report import Report, Wrong

# A mebibyte is what Kubernetes lets a ConfigMap or Secret hold: nobody's
# certificates or configuration are larger.
MAX_FILE_BYTES: Final = 2**20

# Where the files are that systemd hands a unit (systemd.exec(5), LoadCredential=).
_CREDENTIALS: Final = Path("/run/credentials")
_VARIABLE: Final = "CREDENTIALS_DIRECTORY"


def contents(path: Path, *, may_be_pipe: bool = False) -> bytes:
    """Return a whole file of at most ``MAX_FILE_BYTES``.

    Args:
        path: The file.
        may_be_pipe: It may be one, and is waited for. A reload must not wait for anybody.

    Raises:
        Wrong: It cannot be read, or is larger.
    """
    try:
        with open(path, "rb", opener=None if may_be_pipe else _at_once) as file:
            if not may_be_pipe and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Wrong("is not a regular file; name one")
            data = file.read(MAX_FILE_BYTES + 1)
    except IsADirectoryError:
        raise Wrong("is a directory; name the file in it") from None
    except OSError as exc:
        advice = _unit(path) or "check that the path is right and readable"
        raise Wrong(f"cannot be read ({exc.strerror}); {advice}") from None
    if len(data) > MAX_FILE_BYTES:
        raise Wrong("is larger than 1 MiB; is it the right file?")
    return data


def _unit(path: Path) -> str | None:
    """Return what to write into the systemd unit that should have given us a file; None for other files.

    It is not there then, or may not even be looked for: a unit without credentials sees nobody's.
    """
    given = os.environ.get(_VARIABLE)  # an empty one would be the directory of every plain name
    if not path.is_relative_to(_CREDENTIALS) and not (given and path.parent == Path(given)):
        if _VARIABLE in str(path) or "%d" in path.parts:
            return f"variables are not expanded here; write {_CREDENTIALS}/ai-mux.service/ and the name"
        return None
    # What lies there is named by the unit, so that its name is no secret.
    return (
        f"systemd puts it there for a unit with LoadCredential={path.name}:/PATH/OF/THE/FILE, while that "
        "runs; add that line, then: systemctl daemon-reload, and restart the unit"
    )


def _at_once(path: str, flags: int) -> int:
    # The opening of a pipe waits otherwise until somebody writes.
    return os.open(path, flags | os.O_NONBLOCK)


def is_directory(path: Path) -> bool:
    """Tell whether a path is a directory. What cannot be looked at is none: its use will say more."""
    try:
        return path.is_dir()
    except OSError:
        return False


def is_other_than_directory(path: Path) -> bool:
    """Tell whether a path exists and is no directory."""
    try:
        return path.exists() and not path.is_dir()
    except OSError:
        return False


def warn_if_open(path: Path, report: Report, *, line: int, key: str) -> None:
    """Warn about a file with secrets that every user of this machine can read.

    The group is left alone: giving a key to one group is how several services share it.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        report.warn(line, key, f"others on this machine can read it; run: chmod o-rwx '{path}'")
