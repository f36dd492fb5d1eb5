"""Reads the instructions of a Dockerfile that ours uses, and refuses all others.

So small a reader is enough to carry them out without an engine (``containers.engine``). What
it does not know, it says: an instruction that is new in the Dockerfile is not passed over.

Source: Docker's Dockerfile reference.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

_FLAG: Final = re.compile(r"--([a-z-]+)(?:=(\S+))?\s+")
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_PAIR: Final = re.compile(r'([\w.]+)=("(?:[^"\\]|\\.)*"|\S*)\s*')
KNOWN: Final = frozenset(
    {"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK"}
    | {"LABEL", "RUN", "STOPSIGNAL", "USER", "WORKDIR"}
)
# Those that Docker 20.10 without BuildKit and Podman 4.3 read: an older engine refuses the whole file
# for one that it does not know.
FLAGS: Final = {"COPY": {"from"}, "HEALTHCHECK": {"interval", "timeout", "start-period", "retries"}}


class Unreadable(ValueError):
    """Something in it is not known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction, its continued lines joined.

    Attributes:
        line: Where it begins.
        name: In capitals.
        flags: What stands before the rest, as ``from`` of ``--from=builder``.
        rest: The rest, as written.
    """

    line: int
    name: str
    flags: Mapping[str, str]
    rest: str

    def listed(self) -> list[str]:
        """Return the words of the exec form, which is a JSON list.

        Raises:
            Unreadable: It is in the shell form, in which a shell is between the engine and the program.
        """
        try:
            words = json.loads(self.rest)
        except ValueError:
            raise Unreadable(f"line {self.line}: {self.name} is not in the exec form") from None
        assert isinstance(words, list)
        return words


@dataclass(slots=True, kw_only=True)
class Stage:
    """From one FROM to the next.

    Attributes:
        base: The image that it begins with.
        name: By which other stages copy from it.
        instructions: In order.
    """

    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)


def read(text: str, given: Mapping[str, str] | None = None) -> list[Stage]:
    """Return the stages of a Dockerfile.

    Args:
        text: The Dockerfile.
        given: The values of --build-arg.

    Raises:
        Unreadable: There is an instruction that ours has had no use for, or a flag that is not in FLAGS.
    """
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for one in _instructions(text):
        if one.name == "FROM":
            base, _, name = expanded(one.rest, arguments).partition(" AS ")
            stages.append(Stage(base=base, name=name.strip() or str(len(stages))))
        elif not stages and one.name == "ARG":
            arguments |= default(one, given or {})
        elif not stages:
            raise Unreadable(f"line {one.line}: {one.name} before the first FROM")
        else:
            stages[-1].instructions.append(one)
    return stages


def default(one: Instruction, given: Mapping[str, str]) -> dict[str, str]:
    """Return the name and the value of an ARG."""
    name, _, value = one.rest.partition("=")
    return {name: given.get(name, value.strip('"'))}


def pairs(one: Instruction, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the names and values of an ENV or a LABEL, variables replaced."""
    found, end = {}, 0
    while match := _PAIR.match(one.rest, end):
        found[match[1]] = expanded(match[2].strip('"'), environment)
        end = match.end()
    if end != len(one.rest):
        raise Unreadable(f"line {one.line}: {one.rest[end:]!r} is no NAME=VALUE")
    return found


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """Return a text with ``$NAME`` and ``${NAME}`` replaced; what is not known is empty."""
    return _VARIABLE.sub(lambda name: environment.get(name[1] or name[2], ""), text)


def _instructions(text: str) -> Iterator[Instruction]:
    lines = enumerate(text.splitlines(), start=1)
    for at, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        whole = line.strip()
        while whole.endswith("\\"):
            # A comment between the lines of an instruction is no part of it.
            following = next(lines)[1].strip()
            whole = whole.removesuffix("\\") + ("\\" if following.startswith("#") else following)
        name, _, rest = whole.partition(" ")
        if name not in KNOWN:
            raise Unreadable(f"line {at}: {name} is not known here")
        flags = {}
        while match := _FLAG.match(rest):
            if match[1] not in FLAGS.get(name, ()):
                raise Unreadable(f"line {at}: --{match[1]} of {name} is not known here")
            flags[match[1]] = match[2] or ""
            rest = rest[match.end() :]
        yield Instruction(line=at, name=name, flags=flags, rest=rest.strip())
