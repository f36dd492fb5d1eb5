"""Runs containers of an image that ``containers.engine`` has built, as compose.yaml asks for.

A container has processes, mounts and a network of its own, no right, and a file system that
cannot be written but for its mounts. Nothing in it reaches a network.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from containers.engine import Image


@dataclass(slots=True, kw_only=True)
class Container:
    """A container that runs.

    Attributes:
        image: What it was made of.
        user: As whom.
        log: What it printed.
        starter: The process that waits for it.
    """

    image: Image
    user: str
    log: Path
    starter: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its first process, by the number that it has outside."""
        while not (found := _children(self.starter.pid)):
            assert self.starter.poll() is None, self.said
            time.sleep(0.005)
        return found[0]

    @property
    def said(self) -> str:
        """What it has printed up to now."""
        return self.log.read_text(errors="replace")

    def until_entered(self) -> None:
        """Wait until the entry point runs: as the first process, or below an init that waits for it."""
        deadline = time.monotonic() + 20
        program = self.image.entrypoint[0]
        while program not in self._commands():
            assert self.starter.poll() is None, self.said
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def until_it_catches(self, number: int) -> None:
        """Wait until its first process is not passed over by a signal: it has a handler (proc(5), SigCgt)."""
        deadline = time.monotonic() + 20
        status = Path(f"/proc/{self.pid}/status")
        while not int(status.read_text().partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1:
            assert self.starter.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.001)

    def _commands(self) -> Iterator[str]:
        """Return the program of the first process and of its children, without their directories."""
        for pid in (self.pid, *_children(self.pid)):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                yield from (Path(word).name for word in words[:2] if words[0] != "sh")

    def execute(self, command: Sequence[str], *, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run something in it, as an engine's ``exec`` does."""
        entered = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", "--root", "--"]
        return subprocess.run(
            [*entered, *_as(self.user), *_environment(self.image), *command],
            check=False, capture_output=True, timeout=30, input=stdin,
        )  # fmt: skip

    def is_healthy(self) -> tuple[bool, str]:
        """Do what the HEALTHCHECK says, and return whether it is content, and what it printed."""
        done = self.execute(self.image.health)
        return done.returncode == 0, (done.stdout + done.stderr).decode()

    def until(self, word: str) -> None:
        """Wait until it has printed a word."""
        deadline = time.monotonic() + 30
        while word not in self.said:
            assert self.starter.poll() is None, f"it ended: {self.said}"
            assert time.monotonic() < deadline, f"no {word!r}: {self.said}"
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        """Send its first process a signal, as an engine's ``kill`` does."""
        os.kill(self.pid, number)

    def stop(self, *, within_s: float = 20) -> int:
        """Stop it as an engine does, and return its exit code."""
        self.signal(signal.Signals[self.image.stop_signal])
        return self.starter.wait(timeout=within_s)


@contextlib.contextmanager
def running(
    image: Image, *, mounts: Mapping[str, tuple[Path, bool]], log: Path,
    command: Sequence[str] | None = None, user: str | None = None, init: bool = False,
) -> Iterator[Container]:  # fmt: skip
    """Run a container as compose.yaml asks for: no right, no network, nothing to write to but its mounts.

    Args:
        image: Of what.
        mounts: What is mounted where, and whether it may be written.
        log: A new file, for what it prints.
        command: Instead of its CMD.
        user: Instead of its USER.
        init: Put a first process in front that hands on signals, as ``init: true`` does.
    """
    for inside in mounts:
        image.within(inside).mkdir(parents=True, exist_ok=True)
    user = user or image.user
    script = image.mounted(read_only=True)
    for inside, (outside, writable) in mounts.items():
        there, at = shlex.quote(str(outside)), shlex.quote(f"{image.root}{inside}")
        script += f"mount --bind {there} {at}\n"
        script += "" if writable else f"mount -o remount,bind,ro {at}\n"
    script += f"mount -o remount,bind,ro {shlex.quote(str(image.root))}\n{_LOOPBACK_UP}\n"
    words = [
        *_as(user),
        *_environment(image),
        *(_INIT if init else []),
        *image.entrypoint,
        *(command or image.command),
    ]
    script += shlex.join(["exec", "chroot", str(image.root), *words])
    with log.open("wb") as out:
        starter = _started(script, out)
    try:
        yield Container(image=image, user=user, log=log, starter=starter)
    finally:
        _kill(starter)


def _kill(starter: subprocess.Popen[bytes]) -> None:
    """End a container at once, with all that runs in it: a namespace's processes end with its first."""
    # ``--kill-child`` does so only while it is root's: whoever becomes another user is not told of
    # a parent's end any more (PR_SET_PDEATHSIG, prctl(2)).
    while starter.poll() is None:
        first, *_ = (*_children(starter.pid), starter.pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(first, signal.SIGKILL)
        time.sleep(0.002)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _started(script: str, out: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-euc", script],
        stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _as(user: str) -> list[str]:
    uid, gid = user.split(":")
    return [
        "setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--no-new-privs",
        "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all",
    ]  # fmt: skip


def _environment(image: Image) -> list[str]:
    values = [f"{name}={value}" for name, value in image.environment.items()]
    return ["env", "-i", f"--chdir={image.workdir}", *values]


# A wait that a signal interrupts is begun again.
_INIT: Final = [
    "sh", "-c",
    '"$@" & child=$!; for one in HUP INT TERM; do trap "kill -$one $child" $one; done\n'
    'while wait $child; code=$?; kill -0 $child 2>/dev/null; do :; done; exit $code',
    "init",
]  # fmt: skip

# A new network has a loopback that is down: netdevice(7), SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP.
_LOOPBACK_UP: Final = shlex.join(
    [
        sys.executable,
        "-Ic",
        "import fcntl, socket, struct; s = socket.socket(); "
        "flags = struct.unpack('16sH', fcntl.ioctl(s, 0x8913, struct.pack('16sH', b'lo', 0))[:18])[1]; "
        "fcntl.ioctl(s, 0x8914, struct.pack('16sH', b'lo', flags | 1))",
    ]
)
