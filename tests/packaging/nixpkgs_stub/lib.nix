# The functions of nixpkgs' lib that the flake and the module use. A name that the real lib lacks must not be here.
let
  # For a regular expression.
  literally = builtins.replaceStrings [ "." "[" "|" ] [ "\\." "\\[" "\\|" ];

  complete = lib // import ./modules.nix complete;

  lib = {
    inherit (builtins)
      all
      any
      concatLists
      concatMap
      concatStringsSep
      filter
      foldl'
      head
      isAttrs
      isList
      isString
      mapAttrs
      ;

    # Lists

    genAttrs =
      names: make:
      builtins.listToAttrs (
        map (name: {
          inherit name;
          value = make name;
        }) names
      );
    imap0 = make: list: builtins.genList (n: make n (builtins.elemAt list n)) (builtins.length list);
    last = list: builtins.elemAt list (builtins.length list - 1);
    optional = condition: value: if condition then [ value ] else [ ];
    optionalAttrs = condition: value: if condition then value else { };
    toList = value: if builtins.isList value then value else [ value ];

    # Strings

    concatMapStringsSep = mark: make: list: builtins.concatStringsSep mark (map make list);
    hasInfix = part: text: builtins.length (builtins.split (literally part) text) > 1;
    hasPrefix = start: text: builtins.substring 0 (builtins.stringLength start) text == start;
    hasSuffix =
      end: text:
      let
        surplus = builtins.stringLength text - builtins.stringLength end;
      in
      surplus >= 0 && builtins.substring surplus (-1) text == end;
    removePrefix =
      start: text:
      if lib.hasPrefix start text then builtins.substring (builtins.stringLength start) (-1) text else text;
    splitString = mark: text: builtins.filter builtins.isString (builtins.split (literally mark) text);
    toLower =
      let
        letters = text: lib.filter (letter: lib.isString letter && letter != "") (builtins.split "" text);
      in
      builtins.replaceStrings (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (letters "abcdefghijklmnopqrstuvwxyz");
    toIntBase10 =
      text:
      let
        digits = builtins.match "0*([0-9]+)" text;
      in
      builtins.fromJSON (builtins.head digits);
    versionAtLeast = version: least: builtins.compareVersions version least >= 0;

    # Packages and files

    importTOML = file: builtins.fromTOML (builtins.readFile file);
    getExe = package: "${package}/bin/${package.meta.mainProgram}";
    licenses = {
      asl20.spdxId = "Apache-2.0";
      mit.spdxId = "MIT";
    };
    platforms = {
      linux = [
        "aarch64-linux"
        "x86_64-linux"
      ];
      darwin = [
        "aarch64-darwin"
        "x86_64-darwin"
      ];
    };
    # Relative to the root, so that a test can take them from there.
    fileset = {
      unions = files: files;
      toSource =
        { root, fileset }:
        {
          outPath = "/nix/store/stub-source";
          files = map (
            file:
            if builtins.pathExists file then
              lib.removePrefix "${toString root}/" (toString file)
            else
              throw "fileset: ${toString file} does not exist"
          ) fileset;
        };
    };
  };
in
complete
