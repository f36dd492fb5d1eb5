"""flake.nix: everything parses, and what it offers is made of what pyproject.toml and the lock say."""

import base64
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from documents import ROOT
from nix_evaluation import FILES, STUB, EvaluationError, Nix
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

SYSTEMS = ["aarch64-darwin", "aarch64-linux", "x86_64-darwin", "x86_64-linux"]
PACKAGE = "flake.packages.x86_64-linux.ai-mux"


@pytest.fixture
def nix(needed, tmp_path):
    return Nix(program=needed("nix-instantiate"), directory=tmp_path)


@pytest.fixture(scope="session")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_nix_file_parses(nix, path):
    nix.parse(path)


def test_what_is_not_nix_is_refused(nix, tmp_path):
    (tmp_path / "broken.nix").write_text("{ a = 1 }")
    with pytest.raises(EvaluationError, match="syntax error"):
        nix.parse(tmp_path / "broken.nix")


# What it offers


def test_the_flake_offers_what_is_promised_for_every_system(nix):
    offered = nix.evaluate(
        """
        let
          names = one: if lib.isAttrs one then builtins.attrNames one else "a function";
        in
        lib.mapAttrs (_: lib.mapAttrs (_: names)) {
          inherit (flake) packages apps devShells checks overlays nixosModules;
        }
        """
    )
    assert offered["packages"] == {system: ["ai-mux", "default"] for system in SYSTEMS}
    assert offered["apps"] == offered["devShells"] == {system: ["default"] for system in SYSTEMS}
    assert offered["checks"] == {
        system: ["ai-mux", "nixos"] if system.endswith("linux") else ["ai-mux"] for system in SYSTEMS
    }
    assert offered["overlays"] == offered["nixosModules"] == {"default": "a function"}


def test_its_inputs_are_nixpkgs_alone_and_an_older_one_for_intel_macs(nix):
    inputs = nix.evaluate(f"(import {ROOT}/flake.nix).inputs")
    assert set(inputs) == {"nixpkgs", "nixpkgs-intel-mac"}
    made = nix.evaluate(
        """
        let
          older = import STUB { versions.click = "8.1.0"; };
          mixed = flakeWith { nixpkgs = stub; nixpkgs-intel-mac = older; };
          click = package: builtins.filter (one: one.pname == "click") package.dependencies;
        in
        lib.mapAttrs (_: packages: map (one: one.version) (click packages.default)) mixed.packages
        """.replace("STUB", str(STUB))
    )
    assert {system for system, versions in made.items() if versions == ["8.1.0"]} == {"x86_64-darwin"}


def test_the_application_is_the_program_itself(nix):
    app = nix.evaluate("flake.apps.aarch64-darwin.default")
    assert app["type"] == "app"
    assert re.fullmatch(r"/nix/store/stub-ai-mux-[\d.]+/bin/ai-mux", app["program"])


def test_the_overlay_builds_from_the_packages_that_it_lies_over(nix):
    made = nix.evaluate(f"(flake.overlays.default pkgs pkgs).ai-mux.outPath == {PACKAGE}.outPath")
    assert made is True


# The package


def test_the_package_is_what_pyproject_says(nix, project):
    args = nix.evaluate(f'removeAttrs {PACKAGE}.args [ "dependencies" ]')
    assert (args["pname"], args["version"]) == (project["name"], project["version"])
    assert args["meta"]["description"] == project["description"]
    assert args["meta"]["license"]["spdxId"] == project["license"]
    assert args["meta"]["mainProgram"] in project["scripts"]
    assert args["meta"]["platforms"] and args["pyproject"] is True
    assert args["build-system"][0].startswith("/nix/store/stub-hatchling-")
    assert "demo --once" in args["postInstallCheck"]


def test_its_dependencies_are_those_of_pyproject_and_none_is_too_old(nix, project):
    given = nix.evaluate(f"map (one: {{ inherit (one) pname version; }}) {PACKAGE}.dependencies")
    versions = {one["pname"]: one["version"] for one in given}
    wanted = [Requirement(text) for text in project["dependencies"]]
    assert set(versions) == {canonicalize_name(one.name) for one in wanted}
    for one in wanted:
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), one


def test_python_socks_is_nixpkgs_own_where_that_is_new_enough(nix):
    # The stub's is what nixpkgs had: too old.
    chosen = nix.evaluate(
        """
        let
          socks = version: lib.head (
            let
              some = import STUB { versions.python-socks = version; };
              made = flakeWith { nixpkgs = some; nixpkgs-intel-mac = some; };
            in
            lib.filter (one: one.pname == "python-socks") made.packages.x86_64-linux.default.dependencies
          );
          chosen = version: { own = (socks version) ? args; inherit (socks version) version; };
        in
        map chosen [ "2.8.1" "3.0.0" "3.10.2" ]
        """.replace("STUB", str(STUB))
    )
    assert [one["own"] for one in chosen] == [True, False, False]
    assert chosen[2]["version"] == "3.10.2"


def test_the_python_socks_of_our_own_is_the_one_that_is_locked(nix):
    args = nix.evaluate(
        f"let inherit (lib.head {PACKAGE}.dependencies) args; in args // {{ src = args.src.args; }}"
    )
    algorithm, _, digest = args["src"]["hash"].partition("-")
    locked = (ROOT / "requirements.lock").read_text()
    entry = re.search(r"^python-socks==(\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)", locked, re.MULTILINE)
    assert entry, "python-socks is not locked"
    assert args["version"] == args["src"]["version"] == entry[1]
    assert f"--hash={algorithm}:{base64.b64decode(digest).hex()}" in entry[2]


def test_what_nixpkgs_lacks_is_named_when_it_is_asked_for(nix):
    with pytest.raises(EvaluationError, match="nonsense"):
        nix.evaluate("pkgs.callPackage ({ nonsense }: nonsense) { }")


def test_the_wheel_builds_from_the_package_s_source_alone(nix, tmp_path):
    for file in nix.evaluate(f"{PACKAGE}.args.src.files"):
        target = tmp_path / "source" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / file).is_dir() else shutil.copy
        copy(ROOT / file, target)
    build = "import hatchling.build, sys; hatchling.build.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, tmp_path],
        cwd=tmp_path / "source",
        check=True,
        capture_output=True,
        timeout=60,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "ai_mux/cli.py" in names and "ai_mux/usage/prices.toml" in names
    # nixpkgs' installer puts these below $out, where its own hooks would have put them.
    shared = {name.partition("/data/")[2] for name in names if "/data/" in name}
    assert "share/man/man1/ai-mux.1" in shared
    assert {name.split("/")[1] for name in shared} >= {"man", "bash-completion", "zsh", "fish"}


# The development shell


def test_the_shell_has_the_tools_and_ai_mux_from_the_checkout(nix):
    shell = nix.evaluate(
        """
        let
          inherit (flake.devShells.x86_64-linux.default) args;
          environment = lib.head args.packages;
          checkout = builtins.filter (one: one.kind or "" == "editable") environment.packages;
        in
        {
          tools = map (one: one.pname) (args.packages ++ environment.packages);
          roots = map (one: one.args.root) checkout;
          shipped = map (one: one.pname) (lib.head checkout).args.dependencies;
          inherit (args) shellHook;
        }
        """
    )
    tools = {
        "ruff",
        "mypy",
        "pytest",
        "pytest-asyncio",
        "hypothesis",
        "import-linter",
        "nixfmt",
        "prettier",
        "git",
    }
    assert tools <= set(shell["tools"])
    assert shell["roots"] == ["$AI_MUX_CHECKOUT/src"]
    assert "aiohttp" in shell["shipped"]
    subprocess.run(["bash", "-n"], input=shell["shellHook"], text=True, check=True)


def test_no_lock_file_is_made_up():
    # One can be made only where nixpkgs can be asked. Where there is one, it is for these inputs.
    lock = ROOT / "flake.lock"
    if lock.exists():
        assert set(json.loads(lock.read_text())["nodes"]) == {"root", "nixpkgs", "nixpkgs-intel-mac"}
