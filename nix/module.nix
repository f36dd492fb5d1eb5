# services.ai-mux: the server as a NixOS service.
#
# The unit is packaging/systemd/ai-mux.service, read by ./unit.nix; what is set here is only what differs on NixOS or
# by the options. Each directive is a default, which `systemd.services.ai-mux.serviceConfig` overrides.
#
# Rule 1: `settings` is the configuration as the reference has it. Nothing is renamed or hidden, and nothing added but
# `state_dir`.
#
# Rule 2: no secret has to be in the store, which everyone can read. A `token_file` is handed over by systemd, so it
# may belong to root alone; a token that stands in `settings` is warned about.
#
# Rule 3: a change of the configuration is taken over by a reload, so that nobody's answer is cut off, and by a
# restart only where a reload would not do.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  cfg = config.services.ai-mux;
  format = pkgs.formats.json { };

  unit = import ./unit.nix { inherit lib; } ../packaging/systemd/ai-mux.service;
  # What NixOS has options of its own for, empty where the unit does not say it.
  words = section: key: lib.filter (word: word != "") (lib.splitString " " (section.${key} or ""));

  hasSettings = cfg.settings != { };
  hasFile = cfg.settingsFile != null;
  configuration = "/etc/ai-mux/config.json";
  path = if hasFile then "${cfg.settingsFile}" else configuration;

  # What is wrong in the settings is said by ai-mux itself, with the key; here it must not stand in the way.
  listOf = key: lib.toList (cfg.settings.${key} or [ ]);
  users = listOf "users";
  providers = listOf "providers";
  admin = cfg.settings.admin or { };

  # Tokens by reference

  credentialsDirectory = "/run/credentials/ai-mux.service";

  # One that is there already is handed over by somebody's own LoadCredential.
  isHandedOver =
    holder:
    let
      file = toString (holder.token_file or "");
    in
    lib.hasPrefix "/" file && !lib.hasPrefix "/run/credentials/" file;

  # A credential's name is the user's own, so to speak, and no number: were the next user to have it after one was
  # removed, a reload before the restart would let the removed one in as that user. A hash, because a name may hold
  # what the name of a file may not.
  handOver =
    where: holder:
    if isHandedOver holder then
      holder // { token_file = "${credentialsDirectory}/${where}.token_file"; }
    else
      holder;
  credential = where: holder: lib.optional (isHandedOver holder) "${where}.token_file:${holder.token_file}";
  ofUser =
    user:
    let
      name = user.name or null;
    in
    "users.${builtins.hashString "sha256" (if lib.isString name then name else "")}";

  # Sorted, so that another order of the users is no other unit.
  credentials = builtins.sort builtins.lessThan (
    lib.concatMap (user: credential (ofUser user) user) users ++ credential "admin" admin
  );

  completed =
    cfg.settings
    // {
      state_dir = cfg.stateDir;
    }
    // lib.optionalAttrs (lib.isList (cfg.settings.users or null)) {
      users = map (user: handOver (ofUser user) user) users;
    }
    // lib.optionalAttrs (cfg.settings ? admin) { admin = handOver "admin" admin; };
  generated = format.generate "ai-mux.json" completed;

  # Secrets that stand in the settings, or in a file that is copied beside them

  isInStore = file: builtins.isPath file || lib.hasPrefix builtins.storeDir (toString file);
  isPassword = proxy: lib.isString proxy && lib.hasInfix "@" proxy;

  # As the log masks them: see `_masked_value` in src/ai_mux/logs/log.py.
  isSecretField =
    name: value:
    lib.isString value
    && (
      lib.any (part: lib.hasInfix part (lib.toLower name)) [
        "auth"
        "token"
        "secret"
        "key"
        "cookie"
        "password"
        "credential"
        "jwt"
      ]
      || builtins.match ".*(bearer |basic ).*|(.*[^a-z0-9_])?sk-.*" (lib.toLower value) != null
    );
  secretFields =
    headers:
    if lib.isAttrs headers then
      lib.filter (name: isSecretField name headers.${name}) (builtins.attrNames headers)
    else
      [ ];

  secretsOf =
    where: holder:
    lib.optional (holder ? token) "${where}.token"
    ++ lib.optional (isInStore (holder.token_file or "")) "${where}.token_file"
    ++ lib.optional (isInStore (holder.api_key_file or "")) "${where}.api_key_file"
    ++ lib.optional (isInStore (holder.key_path or "")) "${where}.key_path"
    ++ lib.optional (isInStore (holder.credentials or "")) "${where}.credentials"
    ++ map (name: "${where}.headers.${name}") (secretFields (holder.headers or null))
    ++ lib.optional (isPassword (holder.proxy or null)) "${where}.proxy";
  secretsIn =
    key: holders: lib.concatLists (lib.imap0 (index: secretsOf "${key}[${toString index}]") holders);
  secrets =
    secretsIn "users" users
    ++ secretsIn "providers" providers
    ++ secretsOf "admin" admin
    ++ secretsOf "tls" (cfg.settings.tls or { });

  # Where it listens

  portOf =
    address:
    let
      digits = builtins.match ".*:([0-9]+)" address;
    in
    if !lib.isString address || lib.hasPrefix "unix:" address || digits == null then
      null
    else
      lib.toIntBase10 (lib.head digits);
  listen = cfg.settings.listen or ":8080";
  port = if hasFile then null else portOf listen;
  isLocal = lib.isString listen && builtins.match "(127\\.[0-9.]+|localhost|\\[::1]):[0-9]+" listen != null;
  # 0 lets the system choose, and it chooses none of these.
  isPrivileged = lib.any (number: number != null && number > 0 && number < 1024) [
    port
    (portOf (admin.listen or null))
  ];

  # What a reload does not take over: see "Reloading" in docs/configuration.en.md.
  takenAtStart = {
    listen = cfg.settings.listen or null;
    admin = admin.listen or null;
    usage = cfg.settings.usage.enabled or null;
  };

  # Beside the directories that the unit makes, these are written to: a renewed login replaces its file.
  written =
    lib.concatLists (
      lib.imap0 (
        index: provider: fileAt "providers[${toString index}].credentials" (provider.credentials or null)
      ) providers
    )
    ++ fileAt "audit" (cfg.settings.audit or null);
  # One of another type is for ai-mux to complain about, with its key.
  fileAt =
    where: file:
    lib.optional (lib.isString file || builtins.isPath file) {
      inherit where;
      file = toString file;
      inStore = isInStore file;
    };
  writable = map (one: "-${dirOf one.file}") (lib.filter (one: isOwnPlace one.file) written);

  # What lines of units and of tmpfiles.d can carry. There a blank ends a word, a line's end begins the next directive,
  # % and $ are replaced, and quotes and backslashes are taken away.
  isPlain =
    file:
    builtins.match "/[^[:space:][:cntrl:]%$\"'\\\\]*" file != null
    && !(lib.any (part: part == "..") (lib.splitString "/" file));
  # Directly below / the directory that can be written to would be everything.
  isOwnPlace =
    file: isPlain file && builtins.match "/[^/]+(/[^/]+)+" file != null && !(lib.hasInfix "/./" "${file}/");
  isAccount = name: builtins.match "[A-Za-z0-9_][A-Za-z0-9_.-]*" name != null;

  handedOver = map toString (
    map (holder: holder.token_file) (lib.filter isHandedOver (users ++ [ admin ]))
  );
  quoted = lib.concatMapStringsSep ", " builtins.toJSON;

  inVarLib = lib.hasPrefix "/var/lib/" cfg.stateDir;
in
{
  options.services.ai-mux = {
    enable = lib.mkEnableOption "ai-mux, a proxy that holds the logins of AI subscriptions";

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ./package.nix { };
      defaultText = lib.literalExpression "the flake's package";
      description = "The package that is run.";
    };

    settings = lib.mkOption {
      type = lib.types.submodule { freeformType = format.type; };
      default = { };
      example = lib.literalExpression ''
        {
          listen = ":8080";
          providers = [ "claude" "chatgpt" ];
          users = [ { name = "alice"; token_file = "/run/secrets/alice-token"; } ];
        }
      '';
      description = ''
        The configuration: every key of `docs/configuration.en.md`, as it stands there.

        What stands here can be read by every user of the machine, so give tokens as `token_file`. Such a file is
        handed to the service by systemd and may belong to root alone. It is read when the service starts.
      '';
    };

    settingsFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      example = "/run/secrets/ai-mux.yaml";
      description = ''
        A file with the configuration, YAML or JSON, instead of `settings`. The service's user must be able to read
        it, it must not be in the store if it holds a secret, and its `state_dir` must be the option `stateDir`.
      '';
    };

    stateDir = lib.mkOption {
      type = lib.types.str;
      default = cfg.settings.state_dir or "/var/lib/ai-mux";
      defaultText = lib.literalExpression ''settings.state_dir or "/var/lib/ai-mux"'';
      description = ''
        Where logins and the ledger are kept. Not below `/home`, which the service does not see. Beside this
        directory it can write only to those of its audit log, and of the `credentials` that `settings` name.
      '';
    };

    user = lib.mkOption {
      type = lib.types.str;
      default = "ai-mux";
      description = "Whom it runs as, and who logs in. Made if it is the default.";
    };

    group = lib.mkOption {
      type = lib.types.str;
      default = "ai-mux";
      description = "The group that it runs as. Made if it is the default.";
    };

    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Whether to open the port of `settings.listen`.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = !(hasSettings && hasFile);
        message = "services.ai-mux: settings and settingsFile are both given; leave one of them out.";
      }
      {
        assertion = hasSettings || hasFile;
        message = "services.ai-mux: there is no configuration; give settings, or settingsFile.";
      }
      {
        assertion = lib.hasPrefix "/" cfg.stateDir;
        message = "services.ai-mux: the state directory must begin with /, because a service has no home: ${cfg.stateDir}";
      }
      {
        assertion = lib.hasPrefix "/" cfg.stateDir -> isOwnPlace cfg.stateDir && cfg.stateDir != "/var/lib";
        message =
          "services.ai-mux: the state directory must be one of its own, two names deep or more, and written "
          + "without .., blanks and any of % $ \" ' \\: ${quoted [ cfg.stateDir ]}";
      }
      {
        assertion = cfg.settings.state_dir or cfg.stateDir == cfg.stateDir;
        message = "services.ai-mux: settings.state_dir and stateDir differ; leave one of them out.";
      }
      {
        assertion = cfg.openFirewall -> port != null && port > 0;
        message = "services.ai-mux: openFirewall needs a port in settings.listen; else use networking.firewall.";
      }
      {
        assertion = cfg.openFirewall && port != null && port > 0 -> isLocal || lib.any lib.isAttrs users;
        message =
          "services.ai-mux: openFirewall without settings.users would let everyone in the network use the logins; "
          + "add users. If that is meant, use networking.firewall.";
      }
      {
        assertion = isAccount cfg.user && isAccount cfg.group;
        message =
          "services.ai-mux: user and group must consist of letters, digits and _ . -: "
          + quoted [
            cfg.user
            cfg.group
          ];
      }
      {
        assertion = hasFile -> isPlain path;
        message =
          "services.ai-mux: settingsFile must be written without .., blanks and any of % $ \" ' \\: "
          + quoted [ path ];
      }
      {
        assertion = !(lib.any (one: one.inStore) written);
        message =
          "services.ai-mux: these are written to, and nothing in the store can be; name files outside, in quotes: "
          + lib.concatMapStringsSep ", " (one: one.where) (lib.filter (one: one.inStore) written);
      }
      {
        assertion = lib.all (one: one.inStore || isOwnPlace one.file) written;
        message =
          "services.ai-mux: what is written to needs a directory that is not /, and a path that begins with / and is "
          + "written without .., blanks and any of % $ \" ' \\: "
          + lib.concatMapStringsSep ", " (one: "${one.where} = ${quoted [ one.file ]}") (
            lib.filter (one: !(one.inStore || isOwnPlace one.file)) written
          );
      }
      {
        assertion = lib.all isPlain handedOver;
        message =
          "services.ai-mux: a token_file must be written without .., blanks and any of % $ \" ' \\: "
          + quoted (lib.filter (file: !isPlain file) handedOver);
      }
    ];

    warnings =
      lib.optional (secrets != [ ]) (
        "services.ai-mux: these are in the store, where every user of the machine can read them: "
        + lib.concatStringsSep ", " secrets
        + ". Name files outside of the store, in quotes (token_file), or use token_sha256; or put the whole "
        + "configuration into a settingsFile."
      )
      ++ lib.optional (hasFile && isInStore cfg.settingsFile) (
        "services.ai-mux: settingsFile is in the store, where every user of the machine can read it. If it holds "
        + "a secret, name a file outside, in quotes."
      );

    # A copy, which is not for everyone, as ai-mux wants its configuration to be.
    environment.etc."ai-mux/config.json" = lib.mkIf (!hasFile) {
      source = generated;
      mode = "0440";
      inherit (cfg) group;
    };

    # `ai-mux login`, `check`, `usage` and the others.
    environment.systemPackages = [ cfg.package ];

    users.users = lib.mkIf (cfg.user == "ai-mux") {
      ai-mux = {
        isSystemUser = true;
        inherit (cfg) group;
        home = cfg.stateDir;
        description = "ai-mux";
      };
    };
    users.groups = lib.mkIf (cfg.group == "ai-mux") { ai-mux = { }; };

    networking.firewall.allowedTCPPorts = lib.optional cfg.openFirewall port;

    systemd.tmpfiles.rules = lib.optional (
      !inVarLib
    ) "d ${cfg.stateDir} 0700 ${cfg.user} ${cfg.group} -";

    systemd.services.ai-mux = {
      description = unit.Unit.Description;
      documentation = words unit.Unit "Documentation";
      after = words unit.Unit "After";
      wants = words unit.Unit "Wants";
      wantedBy = words unit.Install "WantedBy";
      unitConfig = removeAttrs unit.Unit [
        "After"
        "Description"
        "Documentation"
        "Wants"
      ];

      reloadTriggers = lib.optional (!hasFile) generated;
      restartTriggers = lib.optional (!hasFile) (builtins.toJSON takenAtStart);

      serviceConfig =
        lib.mapAttrs (_: lib.mkDefault) (
          unit.Service
          // {
            ExecStart = "${lib.getExe cfg.package} --config ${path}";
            ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
            User = cfg.user;
            Group = cfg.group;
          }
          // lib.optionalAttrs inVarLib { StateDirectory = lib.removePrefix "/var/lib/" cfg.stateDir; }
          // lib.optionalAttrs (!inVarLib) {
            StateDirectory = [ ];
          }
          // lib.optionalAttrs isPrivileged {
            AmbientCapabilities = "CAP_NET_BIND_SERVICE";
            CapabilityBoundingSet = "CAP_NET_BIND_SERVICE";
            # In a user namespace of its own a capability says nothing about the host's ports.
            PrivateUsers = false;
          }
        )
        // {
          # No defaults: somebody's own come on top.
          LoadCredential = credentials;
          ReadWritePaths = writable ++ lib.optional (!inVarLib) cfg.stateDir;
        };
    };
  };
}
