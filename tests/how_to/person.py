"""Somebody who follows a page: one step after the other, as it stands there, in an empty home.

What is changed: the ports, which may be somebody's here.

A container's paths are those of the directories that the page mounts there.

The machine has stand-ins for what a test cannot have: the vendors' clients, and the part of
systemd that runs a user's services. A checkout's ``start`` is the real one, but for the
environment that it makes.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from documents import ROOT
from how_to.internet import REAL, Internet
from how_to.pages import Step, missing
from how_to.programs import free_port

_STEP_LIMIT_S: Final = 60
_STAND_INS: Final = Path(__file__).parent / "stand_ins"
_OWN: Final = "here"
CONTAINER: Final = "ai-mux/container"
MOUNTS: Final = {"/etc/ai-mux": "config", "/run/secrets": "secrets", "/var/lib/ai-mux": "state"}
"""What stands where in the container of the page about containers, and in its directory."""


_KEPT_IN: Final = Step(
    line=0,
    language="bash",
    body=r"""printf 'providers: [claude, chatgpt]\nstate_dir: nowhere\n' > kept-in.yaml
ai-mux check --config kept-in.yaml || rm kept-in.yaml
""",
    marks={},
    shows=tuple(f"ok … {url}… through … 127.0.0.1:…(from the environment)…" for url in REAL),
)


class Stuck(AssertionError):
    """A step did not do what the page says."""


class Person:
    """Follows one page.

    Args:
        directory: A new one, in which each machine has its home.
        internet: What they reach.
    """

    def __init__(self, directory: Path, internet: Internet) -> None:
        directory.mkdir()
        self._directory = directory
        self._internet = internet
        self._ports = {port: str(free_port()) for port in ("8080", "8090")}
        self._running: list[tuple[Process, Path]] = []
        self._bin = directory / "bin"
        self._bin.mkdir()
        for stand_in in _STAND_INS.iterdir():
            there = self._bin / stand_in.name
            there.write_text(stand_in.read_text().replace("PYTHON", sys.executable))
            there.chmod(0o755)
        (self._bin / "ai-mux").symlink_to(Path(sys.executable).parent / "ai-mux")

    def home(self, machine: str = _OWN) -> Path:
        """Return a machine's home, which has a checkout in ``ai-mux`` at first."""
        home = self._directory / machine
        if not home.exists():
            (home / "ai-mux").mkdir(parents=True)
            start = home / "ai-mux" / "start"
            start.write_text(_start())
            start.chmod(0o755)
        return home

    async def do(self, step: Step) -> None:
        """Do one step.

        Raises:
            Stuck: It failed, or printed something else.
        """
        home = self.home(step.marks.get("on", _OWN))
        body = self._here(step.body, home)
        if "file" in step.marks:
            _write(Path(step.marks["file"].replace("~", str(home), 1)), body)
        elif not step.marks.keys() & {"not run", "run by"}:
            shows = tuple(self._here(line, home) for line in step.shows)
            if "keeps running" in step.marks:
                await self._keep_running(body, shows, home)
            else:
                await self._run(body, shows, home, step.marks.get("typed", ""))

    def _here(self, text: str, home: Path) -> str:
        for port, ours in self._ports.items():
            text = text.replace(port, ours)
        for inside, outside in MOUNTS.items():
            text = re.sub(rf"{inside}(?![\w-])", str(home / CONTAINER / outside), text)
        return text

    async def _run(self, body: str, shows: tuple[str, ...], home: Path, typed: str) -> None:
        # A shell's variables and directory live on from one block to the next, as in a terminal.
        state = home / ".shell-state"
        state.touch()
        script = f'. "{state}"\n{body}\n{{ export -p; printf "cd %q\\n" "$PWD"; }} > "{state}"\n'
        program = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", script, cwd=home, env=self._environment(home),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(_STEP_LIMIT_S):
                out, _ = await program.communicate(typed.encode() + b"\n" if typed else b"")
        except TimeoutError:
            program.kill()
            await program.communicate()
            raise Stuck(f"it does not end:\n{body}") from None
        printed = out.decode(errors="replace")
        if program.returncode != 0:
            raise Stuck(f"exit code {program.returncode}:\n{body}\n{printed}")
        if (line := missing(shows, printed)) is not None:
            raise Stuck(f"it does not print {line!r}:\n{body}\n{printed}")

    async def _keep_running(self, body: str, shows: tuple[str, ...], home: Path) -> None:
        log = self._directory / f"log-{len(self._running)}"
        state = home / ".shell-state"
        state.touch()
        with log.open("wb") as out:
            program = await asyncio.create_subprocess_exec(
                "bash", "-euc", f'. "{state}"\n{body}', cwd=home, env=self._environment(home),
                stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._running.append((program, log))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STEP_LIMIT_S):
                while missing(shows or ("…listening…",), printed := _read(log)) is not None:
                    if program.returncode is not None:
                        raise Stuck(f"it ended with exit code {program.returncode}:\n{body}\n{printed}")
                    await asyncio.sleep(0.05)
                return
        raise Stuck(f"it does not print {shows}:\n{body}\n{printed}")

    async def leave(self) -> None:
        """End what still runs, as Ctrl-C or a shutdown does."""
        for home in self._directory.iterdir():
            for pid in home.glob(".services/*.pid"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid.read_text()), signal.SIGTERM)
        for program, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGTERM)
            await program.wait()

    def _environment(self, home: Path) -> dict[str, str]:
        return {
            "PATH": f"{self._bin}:/usr/bin:/bin",
            "HOME": str(home),
            "USER": "somebody",
            "LC_ALL": "C.UTF-8",
            "LOGINS": str(self._internet.logins),
            **self._internet.environment,
        }


@contextlib.asynccontextmanager
async def somebody(directory: Path, internet: Internet) -> AsyncIterator[Person]:
    """Give a person, and end at the end what they started."""
    person = Person(directory, internet)
    try:
        # The pages' configurations name the real providers, and no test may reach those: so nothing is
        # done before ai-mux has said that it goes through the simulated ones' proxy.
        await person.do(_KEPT_IN)
        yield person
    finally:
        await person.leave()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o600)
    path.write_text(text)


def _read(log: Path) -> str:
    return log.read_text(errors="replace")


def _start() -> str:
    """Return a checkout's script without the part that makes its environment."""
    script = (ROOT / "start").read_text()
    for old, new in {
        ". scripts/environment.sh\n": "say() { printf '%s\\n' \"$*\" >&2; }\n",
        "make_environment .venv/start requirements.lock copy\n": "",
        "ai_mux=$PWD/.venv/start/bin/ai-mux\n": "ai_mux=ai-mux\n",
    }.items():
        assert script.count(old) == 1, old
        script = script.replace(old, new)
    return script
