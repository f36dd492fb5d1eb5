# As much of nixpkgs as the flake and the module touch, for evaluating them without nixpkgs.
#
# Nothing is built: a derivation is an attribute set that holds the arguments it was made with, as `args`, and an
# outPath that names it. What is not here is an error, as a misspelt name is with the real one.
{
  # The versions of python packages that are not as ./packages.nix has them.
  versions ? { },
}:

let
  lib = import ./lib.nix;
in
{
  inherit lib;
  legacyPackages = lib.genAttrs [
    "x86_64-linux"
    "aarch64-linux"
    "x86_64-darwin"
    "aarch64-darwin"
  ] (system: import ./packages.nix { inherit lib system versions; });
}
