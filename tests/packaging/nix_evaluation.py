"""Evaluates the flake and the NixOS module, with a stub of nixpkgs and a store of its own.

Nothing is built or fetched, and nothing outside of a temporary directory is written. Only
what Nix itself says counts: no Nix is imitated here.
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from documents import ROOT

STUB: Final = Path(__file__).parent / "nixpkgs_stub"
UNIT: Final = ROOT / "packaging" / "systemd" / "ai-mux.service"
FILES: Final = sorted([ROOT / "flake.nix", *(ROOT / "nix").glob("*.nix"), *STUB.glob("*.nix")])

_TIME_LIMIT_S: Final = 60

# What every expression can name. The flake is called as Nix calls it: with itself and its inputs.
_SCOPE: Final = f"""
let
  stub = import {STUB} {{ }};
  inherit (stub) lib;
  flakeWith =
    inputs:
    let
      self = (import {ROOT}/flake.nix).outputs ({{ inherit self; }} // inputs) // {{ outPath = {ROOT}; }};
    in
    self;
  flake = flakeWith {{ nixpkgs = stub; nixpkgs-intel-mac = stub; }};
  pkgs = stub.legacyPackages.x86_64-linux;
  nixos =
    module:
    let
      inherit
        (lib.evalModules {{
          specialArgs = {{ inherit pkgs; }};
          modules = [ {STUB}/nixos.nix flake.nixosModules.default module ];
        }})
        config
        ;
    in
    {{
      failed = map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
      inherit (config) warnings;
      unit = config.systemd.services.ai-mux or null;
      etc = lib.mapAttrs (
        _: file: file // {{ source = file.source.text or file.source; }}
      ) config.environment.etc;
      tmpfiles = config.systemd.tmpfiles.rules;
      ports = config.networking.firewall.allowedTCPPorts;
      users = config.users;
      packages = map (package: package.name) config.environment.systemPackages;
    }};
in
"""


class EvaluationError(Exception):
    """Nix refused, and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nix:
    """A Nix without a store to speak of.

    Attributes:
        program: ``nix-instantiate``.
        directory: An empty one.
    """

    program: str
    directory: Path

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, as JSON has it.

        ``flake``, ``flakeWith``, ``stub``, ``lib``, ``pkgs`` and ``nixos`` can stand in it; the last
        takes a module and returns what a system with the flake's module and that one is made of.

        Raises:
            EvaluationError: It has none.
        """
        return json.loads(
            self._run("--eval", "--strict", "--json", "--readonly-mode", "--expr", _SCOPE + expression)
        )

    def parse(self, path: Path) -> None:
        """Look whether a file is Nix.

        Raises:
            EvaluationError: It is not.
        """
        self._run("--parse", path)

    def _run(self, *arguments: str | Path) -> str:
        places = {
            f"NIX_{name}_DIR": str(self.directory / name.lower())
            for name in ("STORE", "STATE", "LOG", "CONF")
        }
        done = subprocess.run(
            # Who runs a test is not one of the users who build for others.
            [self.program, "--option", "build-users-group", "", *arguments],
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory)} | places,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_TIME_LIMIT_S,
        )  # fmt: skip
        if done.returncode:
            raise EvaluationError(done.stderr)
        return done.stdout


def as_nix(value: object) -> str:
    """Return a JSON value as a Nix expression."""
    match value:
        case dict():
            return "{ " + " ".join(f"{json.dumps(key)} = {as_nix(one)};" for key, one in value.items()) + " }"
        case list():
            return "[ " + " ".join(f"({as_nix(one)})" for one in value) + " ]"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("${", "\\${")
        case _:
            return json.dumps(value)


def directives(path: Path) -> dict[str, dict[str, list[str]]]:
    """Return a unit's directives by section; those that stand several times in order."""
    found: dict[str, dict[str, list[str]]] = {}
    section = ""
    for line in path.read_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
        elif line and line[0] not in "#;":
            name, _, value = line.partition("=")
            found.setdefault(section, {}).setdefault(name, []).append(value)
    return found
