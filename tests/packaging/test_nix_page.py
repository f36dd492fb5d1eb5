"""docs/how-to/nixos.md: every block of Nix evaluates, and the options are those of the module."""

import re

import pytest
from documents import ROOT, blocks, sections
from nix_evaluation import Nix

PAGE = "docs/how-to/nixos.md"
CHECKOUT = "/srv/src/ai-mux"
BLOCKS = blocks("nix", document=PAGE)


@pytest.fixture
def nix(needed, tmp_path):
    return Nix(program=needed("nix-instantiate"), directory=tmp_path)


def test_the_system_s_flake_has_the_service(nix):
    (flake,) = (block for block in BLOCKS if "inputs = {" in block)
    system = nix.evaluate(
        f"""
        let
          # The flake's own module is among those of ``nixos`` already.
          given = lib.filter (module: !builtins.isFunction module);
          nixosSystem =
            {{ modules, system }}: assert system == "x86_64-linux"; nixos {{ imports = given modules; }};
          nixpkgs = stub // {{ lib = lib // {{ inherit nixosSystem; }}; }};
        in
        (({flake}).outputs {{ inherit nixpkgs; ai-mux = flake; }}).nixosConfigurations.gateway
        """
    )
    assert system["failed"] == []
    assert [warning for warning in system["warnings"] if "users[0].token" in warning] == system["warnings"]
    assert system["unit"]["serviceConfig"]["ExecStart"].endswith("/etc/ai-mux/config.json")


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if "inputs = {" not in block], ids=range(len(BLOCKS) - 1)
)
def test_each_module_of_the_page_is_one(nix, block):
    module = block.replace(CHECKOUT, str(ROOT))
    # A page need not say again what it said before.
    says_so = "ai-mux.enable" in block or "    enable = true;\n    settingsFile" in block
    started = "" if says_so else "services.ai-mux.enable = true;"
    somebody = '{ name = "somebody"; token_file = "/run/secrets/somebody"; }'
    configured = "" if "settingsFile" in block else f"services.ai-mux.settings.users = [ {somebody} ];"
    system = nix.evaluate(f"nixos {{ imports = [ ({module}) ]; {started} {configured} }}")
    assert (system["failed"], system["warnings"]) == ([], [])
    assert system["unit"]["serviceConfig"]["ExecStart"]


@pytest.mark.parametrize("block", blocks("nix"), ids=range(len(blocks("nix"))))
def test_what_the_readme_shows_of_the_module_works_as_it_stands(nix, block):
    body = block if block.lstrip().startswith("{") else f"{{ {block} }}"
    system = nix.evaluate(f"nixos {{ imports = [ ({body}) ]; }}")
    assert system["failed"] == []
    assert system["unit"]["serviceConfig"]["ExecStart"]


def test_the_module_alone_builds_the_package_itself(nix):
    made = nix.evaluate(
        f"""
        (lib.evalModules {{
          specialArgs = {{ inherit pkgs; }};
          modules = [ {ROOT}/tests/packaging/nixpkgs_stub/nixos.nix {ROOT}/nix/module.nix ];
        }}).config.services.ai-mux.package.pname
        """
    )
    assert made == "ai-mux"


def test_every_option_is_in_the_table_with_its_default(nix):
    options = nix.evaluate(
        f"""
        lib.mapAttrs (_: option: option.defaultText.text or (builtins.toJSON option.default))
          (import {ROOT}/nix/module.nix {{
            inherit lib pkgs;
            config.services.ai-mux.settings = {{ }};
          }}).options.services.ai-mux
        """
    )
    (section,) = (one for one in sections(PAGE) if any(row[0] == "Option" for row in one.rows))
    table = {row[0].strip("`"): row[1].strip("`") for row in section.rows if row[0].startswith("`")}
    assert set(table) == set(options)
    for name in ("enable", "openFirewall", "settingsFile"):
        assert table[name] == options[name]
    assert f'"{table["user"]}"' == options["user"] and f'"{table["group"]}"' == options["group"]
    assert table["settings"].replace(" ", "") == options["settings"]


def test_what_the_page_quotes_is_what_the_module_says():
    module = (ROOT / "nix/module.nix").read_text()
    (section,) = (one for one in sections(PAGE) if one.title == "When something is wrong")
    quoted = [row[0].strip("`") for row in section.rows if re.match(r"`[a-zA-Z ]+", row[0])]
    said = [text for text in quoted if text in module]
    assert len(said) >= 3
