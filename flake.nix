# ai-mux as a package, an application, a development shell, an overlay and a NixOS module.
#
# There are as few inputs as can be, because whoever uses this flake has to trust and update them all: nixpkgs, and
# nixpkgs 26.05 once more for Intel Macs alone, the last that has them. What the hooks of the
# development shell need is in nixpkgs and a script of ours, so no input is spent on them.
{
  description = "Reach AI subscriptions with ordinary tokens: a small, fast, transparent proxy";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    # Fetched on an Intel Mac only.
    nixpkgs-intel-mac.url = "github:NixOS/nixpkgs/nixpkgs-26.05-darwin";
  };

  outputs =
    {
      self,
      nixpkgs,
      nixpkgs-intel-mac,
    }:
    let
      inherit (nixpkgs) lib;

      sourceOf = {
        x86_64-linux = nixpkgs;
        aarch64-linux = nixpkgs;
        x86_64-darwin = nixpkgs-intel-mac;
        aarch64-darwin = nixpkgs;
      };

      eachSystem = make: lib.mapAttrs (system: source: make source.legacyPackages.${system}) sourceOf;

      packageOf = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system}.ai-mux;
    in
    {
      packages = eachSystem (pkgs: rec {
        ai-mux = pkgs.callPackage ./nix/package.nix { };
        default = ai-mux;
      });

      # nix run . -- --config FILE
      apps = eachSystem (pkgs: {
        default = {
          type = "app";
          program = lib.getExe (packageOf pkgs);
          meta.description = "The server, and the commands beside it";
        };
      });

      devShells = eachSystem (pkgs: {
        default = pkgs.callPackage ./nix/shell.nix { ai-mux = packageOf pkgs; };
      });

      overlays.default = final: _previous: {
        ai-mux = final.callPackage ./nix/package.nix { };
      };

      # The package is this flake's, made of the nixpkgs that it was tested with, unless the system says otherwise.
      nixosModules.default =
        { pkgs, ... }:
        {
          imports = [ ./nix/module.nix ];
          services.ai-mux.package = lib.mkDefault (packageOf pkgs);
        };

      checks = eachSystem (
        pkgs:
        {
          # Building it serves a request: see nix/package.nix.
          ai-mux = packageOf pkgs;
        }
        // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
          nixos = pkgs.testers.runNixOSTest {
            imports = [ ./nix/vm-test.nix ];
            defaults.imports = [ self.nixosModules.default ];
          };
        }
      );
    };
}
