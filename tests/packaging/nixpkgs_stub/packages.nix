# The packages of one system.
{
  lib,
  system,
  versions,
}:

let
  derivation =
    pname: version: rest:
    {
      type = "derivation";
      inherit pname version;
      name = "${pname}-${version}";
      outPath = "/nix/store/stub-${pname}-${version}";
      meta = { };
    }
    // rest;

  # Passes those of the packages that a function asks for by name; one that is missing is an error of Nix's own.
  callWith =
    scope: function: given:
    let
      callee = if builtins.isFunction function then function else import function;
    in
    callee (builtins.intersectAttrs (builtins.functionArgs callee) scope // given);

  python = "3.13.9";

  # As nixpkgs had them when last looked up.
  pythonPackages = lib.mapAttrs (pname: version: derivation pname (versions.${pname} or version) { }) {
    aiohappyeyeballs = "2.7.0";
    aiohttp = "3.14.1";
    brotli = "1.2.0";
    click = "8.3.3";
    hatchling = "1.30.1";
    httptools = "0.7.1";
    hypothesis = "6.150.0";
    import-linter = "2.9";
    mypy = "1.19.1";
    prometheus-client = "0.25.0";
    pytest = "9.0.3";
    pytest-asyncio = "1.3.0";
    python-socks = "2.8.1";
    rich = "15.0.0";
    ruamel-yaml = "0.19.1";
    setuptools = "82.0.0";
    uvloop = "0.22.1";
    zstandard = "0.25.0";
  };

  build =
    kind: args:
    derivation args.pname args.version {
      inherit kind args;
      meta = args.meta or { };
      dependencies = args.dependencies or [ ];
    };

  pythonScope =
    pkgs
    // pythonPackages
    // {
      callPackage = callWith pythonScope;
      buildPythonApplication = build "application";
      buildPythonPackage = build "package";
      fetchPypi = args: derivation args.pname args.version { inherit args; };
      mkPythonEditablePackage = build "editable";
    };

  pkgs = {
    inherit lib;
    stdenv.hostPlatform = {
      inherit system;
      isLinux = lib.hasSuffix "-linux" system;
    };
    callPackage = callWith pkgs;
    python3Packages = pythonScope;
    python3 = derivation "python3" python {
      pkgs = pythonScope;
      withPackages = select: derivation "python3-env" python { packages = select pythonPackages; };
    };
    mkShell = args: derivation "nix-shell" "0" { inherit args; };
    formats.json = _: {
      type = lib.types.document;
      generate = name: document: derivation name "0" { text = builtins.toJSON document; };
    };
    testers.runNixOSTest = module: derivation "vm-test" "0" { inherit module; };
  }
  // lib.mapAttrs (pname: version: derivation pname version { meta.mainProgram = pname; }) {
    coreutils = "9.11";
    curl = "8.19.0";
    git = "2.54.0";
    nixfmt = "1.2.0";
    prettier = "3.8.3";
    ruff = "0.15.8";
    versionCheckHook = "0";
  };
in
pkgs
