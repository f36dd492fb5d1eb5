"""Carries out a Dockerfile with the kernel alone: no engine, no image.

An image is a plain directory. What its base would bring (a system, and Python below
/usr/local) is this machine's own, mounted read-only, with layers over /usr/local and /etc that
keep what is written there. Each step has its own mounts and processes.

What this does not show: that the base image exists and has what is expected of it, and how
an engine reads what ``containers.dockerfile`` reads. It needs root, and util-linux.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from containers.dockerfile import Instruction, Stage, Unreadable, default, expanded, pairs, read

STEP_LIMIT_S: Final = 300
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
# What a base image begins with. Its loader knows /usr/local/lib, where Python's own library is; this
# machine's does not.
_BASE: Final = {"PATH": _PATH, "LD_LIBRARY_PATH": "/usr/local/lib"}
_LAYERS: Final = {"local": "/usr/local", "etc": "/etc"}
_DEVICES: Final = ("null", "zero", "urandom", "random")
# Which way this machine reaches a registry. An engine passes proxies on by itself; certificates and
# an index are part of a base image.
_PASSED_ON: Final = ("PIP_INDEX_URL", "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES: Final = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class Failed(AssertionError):
    """A step did not work."""


@dataclass(slots=True, kw_only=True)
class Image:
    """What a stage comes to.

    Attributes:
        directory: Where its files are: ``root``, and what is laid over the base's own.
        python: What stands in for the base's /usr/local.
        environment: ENV.
        labels: LABEL.
        user: USER, as written.
        workdir: WORKDIR.
        stop_signal: STOPSIGNAL.
        entrypoint: ENTRYPOINT.
        command: CMD.
        health: The command of the HEALTHCHECK.
    """

    directory: Path
    python: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(_BASE))
    labels: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    workdir: str = "/"
    stop_signal: str = ""
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # As the base has them: links of a merged /usr, and places to mount at.
        for name in ("bin", "lib", "lib64", "sbin"):
            if Path("/", name).is_symlink():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / name).symlink_to(Path("/", name).readlink())
        for name in ("usr", "etc", "proc", "dev", "tmp", "var/lib", "run"):
            (self.root / name).mkdir(parents=True)
        for layer in _LAYERS:
            (self.directory / layer).mkdir()
            (self.directory / f"{layer}.work").mkdir()
        # The commands ``python`` and ``pip``, wherever this Python was made for.
        there = self.within("/usr/local/bin")
        there.mkdir()
        (there / "python").symlink_to("python3")
        (there / "pip").write_text('#!/bin/sh\nexec /usr/local/bin/python3 -m pip "$@"\n')
        (there / "pip").chmod(0o755)

    @property
    def root(self) -> Path:
        """What is ``/`` in it, but for the base's own."""
        return self.directory / "root"

    def within(self, path: str) -> Path:
        """Return where something of it is written, outside."""
        for layer, at in _LAYERS.items():
            if path == at or path.startswith(f"{at}/"):
                return self.directory / layer / path.removeprefix(at).lstrip("/")
        return self.root / path.lstrip("/")

    def mounted(self, *, read_only: bool) -> str:
        """Return the lines of a shell that put its file system together below ``root``."""
        root = shlex.quote(str(self.root))
        lines = [
            "mount --make-rprivate /",
            f"mount --bind {root} {root}",
            f"mount --bind /usr {root}/usr && mount -o remount,bind,ro {root}/usr",
        ]
        for layer, at in _LAYERS.items():
            base, upper = (self.python if layer == "local" else at), self.directory / layer
            options = f"lowerdir={base},upperdir={upper},workdir={upper}.work"
            if read_only:
                options = f"lowerdir={upper}:{base}"
            lines.append(f"mount -t overlay overlay -o {shlex.quote(options)} {root}{at}")
        lines += [f"mount -t proc proc {root}/proc", f"mount -t tmpfs -o mode=755 tmpfs {root}/dev"]
        for name in _DEVICES:
            lines.append(f"touch {root}/dev/{name} && mount --bind /dev/{name} {root}/dev/{name}")
        return "\n".join(lines) + "\n"


def build(
    dockerfile: str, context: Path, directory: Path, *, python: Path, arguments: Mapping[str, str]
) -> Image:
    """Carry out a Dockerfile, and return what its last stage comes to.

    Args:
        dockerfile: Its text.
        context: The files that COPY takes, with what .dockerignore keeps out left out.
        directory: A new one, for all that is written.
        python: What stands in for /usr/local of the base image.
        arguments: The values of --build-arg.

    Raises:
        Failed: A command failed.
        Unreadable: There is something that is not known here.
    """
    directory.mkdir(parents=True)
    images: dict[str, Image] = {}
    for stage in read(dockerfile, arguments):
        image = images[stage.name] = Image(directory=directory / stage.name, python=python)
        _carry_out(stage, image, images, context, arguments)
    return image


def _carry_out(
    stage: Stage, image: Image, images: Mapping[str, Image], context: Path, given: Mapping[str, str]
) -> None:
    told: dict[str, str] = {}  # ARG, which a step sees and a container does not
    for one in stage.instructions:
        known = told | image.environment
        match one.name:
            case "ARG":
                told |= default(one, given)
            case "ENV":
                image.environment |= pairs(one, known)
            case "LABEL":
                image.labels |= pairs(one, known)
            case "WORKDIR":
                image.workdir = expanded(one.rest, known)
                image.within(image.workdir).mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(one, image, images, context, known)
            case "RUN":
                _run(one, image, told)
            case "USER":
                image.user = expanded(one.rest, known)
            case "STOPSIGNAL":
                image.stop_signal = one.rest
            case "HEALTHCHECK":
                image.health = _health(one)
            case "ENTRYPOINT":
                image.entrypoint, image.command = one.listed(), []
            case "CMD":
                image.command = one.listed()
            case "EXPOSE":
                pass
            case _:
                raise Unreadable(f"line {one.line}: {one.name}")


def _copy(
    one: Instruction, image: Image, images: Mapping[str, Image], context: Path, known: Mapping[str, str]
) -> None:
    *sources, target = expanded(one.rest, known).split()
    to = image.within(os.path.normpath(f"{'' if target.startswith('/') else image.workdir}/{target}"))
    for source in sources:
        there = images[one.flags["from"]].within(source) if "from" in one.flags else context / source
        if there.is_dir():  # its content
            shutil.copytree(there, to, symlinks=True, dirs_exist_ok=True)
        else:
            inside = to / there.name if target.endswith(("/", ".")) else to
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(there, inside)


def _run(one: Instruction, image: Image, told: Mapping[str, str]) -> None:
    ways = {name: os.environ[name] for name in (*_PASSED_ON, *_PROXIES) if name in os.environ}
    inside = {**ways, "HOME": "/root", **told, **image.environment}
    script = image.mounted(read_only=False) + shlex.join(
        ["exec", "chroot", str(image.root), "env", "-i", f"--chdir={image.workdir}"]
        + [f"{name}={value}" for name, value in inside.items()]
        + ["sh", "-c", one.rest]
    )
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", script],
        check=False, capture_output=True, text=True, timeout=STEP_LIMIT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode != 0:
        raise Failed(f"line {one.line}: exit code {done.returncode}: {one.rest}\n{done.stdout}{done.stderr}")


def _health(one: Instruction) -> list[str]:
    form, _, words = one.rest.partition(" ")
    if form != "CMD":
        raise Unreadable(f"line {one.line}: {form}")
    return Instruction(line=one.line, name="HEALTHCHECK", flags={}, rest=words.strip()).listed()
