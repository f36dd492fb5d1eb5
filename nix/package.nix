# ai-mux, built from nixpkgs' python packages.
#
# No version bound of pyproject.toml is relaxed, and the build compares every dependency with its bound: each bound has
# a reason there. nixpkgs 26.05 and later satisfy all but one:
#
#   python-socks       nixpkgs had 2.8 when last looked up. ai-mux hands the library a connected socket, by the
#                      parameter `forward`, which it has from 3.0 on: ./python-socks.nix, until nixpkgs has it.
#   aiofastnet         is not in nixpkgs, and not needed: an optional engine, which is not the default.
#   brotli             1.2 is the first whose decoder bounds what it gives out. nixpkgs 25.05 is too old for it.
{
  lib,
  python3Packages,
  versionCheckHook,
}:

let
  project = (lib.importTOML ../pyproject.toml).project;

  python-socks =
    if lib.versionAtLeast python3Packages.python-socks.version "3.0" then
      python3Packages.python-socks
    else
      python3Packages.callPackage ./python-socks.nix { };
in
python3Packages.buildPythonApplication {
  pname = project.name;
  inherit (project) version;
  pyproject = true;

  # What the wheel is made of, so that a change of a test or a page builds nothing anew. The wheel brings the man page
  # and the completions along, into share/ where nixpkgs wants them, so installShellFiles has nothing left to do.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../LICENSE
      ../README.md
      ../packaging/completion
      ../packaging/man
      ../pyproject.toml
      ../src
    ];
  };

  build-system = [ python3Packages.hatchling ];

  dependencies = [
    python-socks
  ]
  ++ (with python3Packages; [
    aiohappyeyeballs
    aiohttp
    brotli
    click
    httptools
    prometheus-client
    rich
    ruamel-yaml
    uvloop
    zstandard
  ]);

  # The demo is a whole gateway in front of a simulated provider: it renews a credential, streams an answer and ends.
  # So what was built is known to work together, without a network; the tests themselves run in CI.
  nativeCheckInputs = [ versionCheckHook ];
  postInstallCheck = ''
    HOME="$TMPDIR" "$out/bin/ai-mux" demo --once
  '';
  __darwinAllowLocalNetworking = true;

  pythonImportsCheck = [ "ai_mux" ];

  meta = {
    inherit (project) description;
    license = lib.licenses.mit;
    mainProgram = "ai-mux";
    platforms = lib.platforms.linux ++ lib.platforms.darwin;
  };
}
