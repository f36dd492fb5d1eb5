"""Installs the vendors' clients and JavaScript SDKs as package-lock.json says, and runs clients."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_CACHE: Final = _HERE.parents[1] / ".cache" / "clients"
_INSTALL_LIMIT_S: Final = 600

# A client that hangs must fail its test, not the build. They take 2 to 6 s here.
_RUN_LIMIT_S: Final = 60


class NotInstalled(Exception):
    """The clients cannot be had here. The message says why, in one line."""


# Installing


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """What was installed.

    Attributes:
        modules: The ``node_modules`` directory, with the JavaScript SDKs.
        claude: The program of Claude Code.
        codex: The program of Codex.
    """

    modules: Path
    claude: Path
    codex: Path


def installed() -> Clients:
    """Return the clients, installed once for each lock file.

    Raises:
        NotInstalled: npm is missing or failed.
    """
    locked = hashlib.sha256((_HERE / "package-lock.json").read_bytes()).hexdigest()[:12]
    target = _CACHE / locked
    if not target.is_dir():
        if shutil.which("npm") is None:
            raise NotInstalled("npm missing")
        try:
            _install(target)
        except subprocess.CalledProcessError as exc:
            raise NotInstalled(f"npm failed: {' '.join(exc.stderr.split())[:200]}") from exc
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise NotInstalled(f"npm failed: {exc}") from exc
    modules = target / "node_modules"
    # Claude Code's own bin/ is filled by an install script, and none is run here:
    # the program is taken from the package of this platform.
    claude, *_ = modules.glob("@anthropic-ai/claude-code-*/claude")
    return Clients(modules=modules, claude=claude, codex=modules / ".bin" / "codex")


def _install(target: Path) -> None:
    """Run ``npm ci`` aside and move the result into place: an interrupted install leaves nothing behind."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE) as scratch:
        aside = Path(scratch, "clients")
        aside.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(_HERE / name, aside)
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=aside, check=True, timeout=_INSTALL_LIMIT_S,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip
        with contextlib.suppress(FileExistsError):  # another run was faster
            aside.rename(target)


# Running


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a client printed before it ended."""

    code: int
    out: str
    err: str


async def run(*command: str | Path, home: Path, proxy: str, environment: dict[str, str]) -> Finished:
    """Run a client in ``home`` with nothing of our environment but PATH, and wait for its end.

    Args:
        command: The program and its arguments.
        home: The client's home and working directory.
        proxy: Where it is sent for everything that is not on loopback.
        environment: What its environment holds besides.
    """
    program = await asyncio.create_subprocess_exec(
        *command, cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
        env={
            "PATH": os.environ["PATH"], "HOME": str(home),
            "HTTPS_PROXY": proxy, "NO_PROXY": "127.0.0.1,localhost",
        } | environment,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_RUN_LIMIT_S):
            out, err = await program.communicate()
    except (TimeoutError, asyncio.CancelledError):
        # Codex is a program of its own below a script, and would hold our pipes open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        await program.wait()
        raise
    assert program.returncode is not None
    return Finished(code=program.returncode, out=out.decode(), err=err.decode())
