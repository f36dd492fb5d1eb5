# The options of NixOS that the module sets, with their types.
{ lib, ... }:

let
  inherit (lib) types;
  option = type: default: lib.mkOption { inherit type default; };
  required = type: lib.mkOption { inherit type; };
  words = option (types.listOf types.str) [ ];
in
{
  options = {
    assertions = option (types.listOf types.anything) [ ];
    warnings = words;

    environment.etc =
      option
        (types.attrsOf (
          types.submodule {
            options = {
              source = required types.anything;
              mode = option types.str "symlink";
              user = option types.str "+0";
              group = option types.str "+0";
            };
          }
        ))
        { };
    environment.systemPackages = option (types.listOf types.package) [ ];

    networking.firewall.allowedTCPPorts = option (types.listOf types.port) [ ];

    users.users =
      option
        (types.attrsOf (
          types.submodule {
            options = {
              isSystemUser = option types.bool false;
              group = option types.str "";
              extraGroups = words;
              home = option types.path "/var/empty";
              description = option types.str "";
            };
          }
        ))
        { };
    users.groups = option (types.attrsOf (types.submodule { options = { }; })) { };

    # Not the module's: a page shows it beside the module.
    security.acme.certs = option (types.attrsOf types.anything) { };

    systemd.tmpfiles.rules = words;
    systemd.services =
      option
        (types.attrsOf (
          types.submodule {
            options = {
              description = option types.str "";
              documentation = words;
              after = words;
              wants = words;
              wantedBy = words;
              reloadTriggers = option (types.listOf types.anything) [ ];
              restartTriggers = option (types.listOf types.anything) [ ];
              unitConfig = option (types.attrsOf types.unitOption) { };
              serviceConfig = option (types.attrsOf types.unitOption) { };
            };
          }
        ))
        { };
  };
}
