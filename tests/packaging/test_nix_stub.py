"""The stub of nixpkgs refuses what nixpkgs refuses; else the other tests would prove nothing."""

import pytest
from nix_evaluation import EvaluationError, Nix, as_nix

OPTIONS = """
  options = {
    name = lib.mkOption { type = lib.types.str; };
    size = lib.mkOption { type = lib.types.nullOr lib.types.int; default = null; };
    tags = lib.mkOption { type = lib.types.listOf lib.types.str; default = [ ]; };
    deep.on = lib.mkEnableOption "it";
    any = lib.mkOption { type = lib.types.submodule { freeformType = lib.types.document; }; default = { }; };
  };
"""


@pytest.fixture
def nix(needed, tmp_path):
    return Nix(program=needed("nix-instantiate"), directory=tmp_path)


@pytest.fixture
def config(nix):
    """Evaluate modules against a few options."""

    def evaluate(*modules):
        joined = " ".join(f"({module})" for module in modules)
        return nix.evaluate(f"(lib.evalModules {{ modules = [ {{ {OPTIONS} }} {joined} ]; }}).config")

    return evaluate


def test_values_defaults_and_lists_come_together(config):
    made = config('{ name = "a"; tags = [ "x" ]; }', '{ tags = [ "y" ]; }')
    assert made == {"name": "a", "size": None, "tags": ["x", "y"], "deep": {"on": False}, "any": {}}


def test_a_condition_may_ask_for_another_option(config):
    made = config(
        '{ config, lib, ... }: { config = lib.mkIf config.deep.on { name = "a"; any.b = 1; }; }',
        "{ deep.on = true; }",
        "{ lib, ... }: { any.c = lib.mkIf false 2; size = lib.mkIf false 3; }",
    )
    assert (made["name"], made["size"], made["any"]) == ("a", None, {"b": 1})


def test_the_strongest_definition_wins(config):
    made = config(
        '{ lib, ... }: { name = lib.mkDefault "default"; size = 1; any.x = lib.mkDefault 1; }',
        '{ lib, ... }: { name = "plain"; size = lib.mkForce 2; any.x = 2; }',
    )
    assert (made["name"], made["size"], made["any"]) == ("plain", 2, {"x": 2})


def test_an_import_is_a_module_like_another(config, tmp_path):
    (tmp_path / "other.nix").write_text('{ lib, ... }: { config.tags = [ "imported" ]; }')
    made = config(f'{{ imports = [ {tmp_path}/other.nix ]; config.name = "a"; }}')
    assert made["tags"] == ["imported"]


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (["{ nam = 1; }"], "The option `nam' does not exist"),
        (["{ deep.off = 1; }"], "The option `deep.off' does not exist"),
        (["{ name = 1; }"], "`name' is not of type `string'"),
        (['{ name = "a"; tags = [ 1 ]; }'], "`tags' is not of type"),
        (['{ name = "a"; }', '{ name = "b"; }'], "`name' has conflicting definition values"),
        (['{ name = "a"; any.x = 1; }', "{ any.x = 2; }"], "`any.x' has conflicting definition values"),
        (["{ }"], "`name' is used but not defined"),
        (['{ name = "a"; any.f = x: x; }'], "`any.f' is not of type"),
    ],
)
def test_what_the_module_system_refuses_is_refused(config, modules, said):
    with pytest.raises(EvaluationError) as refused:
        config(*modules)
    assert said in str(refused.value)


def test_values_reach_nix_as_they_are(nix):
    value = {"a-b": [1, -2.5, None, True], "s": 'quote " dollar ${x} back \\ ünïcode\n', "e": {}}
    assert nix.evaluate(as_nix(value)) == value


def test_an_error_says_where(nix):
    with pytest.raises(EvaluationError, match="undefined variable"):
        nix.evaluate("nowhere")
