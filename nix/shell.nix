# The development shell: ai-mux from the checkout, what the tests and linters need, and a pre-commit hook.
#
# The hook is ./pre-commit, a script of ours, and not the flake git-hooks.nix: that would be one more input with inputs
# of its own, for what are five commands here, and its hooks would not be the ones that people without Nix can run.
# `./test` makes an environment of its own, from the lock files, and works in this shell as well; it is what has the
# vendors' SDKs.
{
  ai-mux,
  git,
  mkShell,
  nixfmt,
  prettier,
  python3,
  ruff,
}:

let
  checkout = python3.pkgs.mkPythonEditablePackage {
    inherit (ai-mux) pname version dependencies;
    root = "$AI_MUX_CHECKOUT/src";
    scripts.ai-mux = "ai_mux.__main__:main";
  };
in
mkShell {
  packages = [
    (python3.withPackages (packages: [
      checkout
      packages.hatchling
      packages.hypothesis
      packages.import-linter
      packages.mypy
      packages.pytest
      packages.pytest-asyncio
    ]))
    git
    nixfmt
    prettier
    ruff
  ];

  # A hook that is there already is somebody's own, and stays.
  shellHook = ''
    if AI_MUX_CHECKOUT="$(git rev-parse --show-toplevel)"; then
      export AI_MUX_CHECKOUT
      hook="$(git rev-parse --git-path hooks/pre-commit)"
      if [ -x "$AI_MUX_CHECKOUT/nix/pre-commit" ] && [ ! -e "$hook" ] && [ ! -L "$hook" ]; then
        mkdir -p "$(dirname "$hook")"
        ln -s "$AI_MUX_CHECKOUT/nix/pre-commit" "$hook"
        echo "pre-commit hook: $hook"
      fi
      unset hook
    fi
  '';
}
