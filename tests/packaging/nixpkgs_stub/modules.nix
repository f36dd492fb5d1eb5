# The module system: options are declared, and modules define them, with conditions and priorities.
#
# Faithful for what the module uses: an option that nobody declared is an error, so is a value of another type, two
# different values at one priority, and an option without value that is asked for.
lib:

let
  inherit (builtins)
    all
    attrNames
    concatLists
    concatMap
    elem
    filter
    foldl'
    head
    isAttrs
    isFunction
    length
    mapAttrs
    tail
    ;

  usual = 100;
  typed = name: value: isAttrs value && (value._type or null) == name;
  isOption = typed "option";
  where = builtins.concatStringsSep ".";

  # Properties

  # A value, with what stands around it taken off: a list of { priority, value }, empty where a condition fails.
  discharge =
    value:
    if typed "if" value then
      if value.condition then discharge value.content else [ ]
    else if typed "override" value then
      map (one: one // { inherit (value) priority; }) (discharge value.content)
    else
      [
        {
          priority = usual;
          inherit value;
        }
      ];

  strongest =
    found:
    let
      least = foldl' (low: one: if one.priority < low then one.priority else low) 10000 found;
    in
    map (one: one.value) (filter (one: one.priority == least) found);

  # Types: what is right, and how several definitions become one value

  mkType =
    {
      name,
      check,
      merge ? (
        path: values:
        if all (value: value == head values) (tail values) then
          head values
        else
          throw "The option `${where path}' has conflicting definition values"
      ),
    }:
    {
      inherit name merge check;
    };

  mergeOption =
    path: type: values:
    let
      wrong = filter (value: !type.check value) values;
    in
    if wrong == [ ] then
      type.merge path values
    else
      throw "A definition for option `${where path}' is not of type `${type.name}'";

  namesIn = sets: attrNames (foldl' (one: other: one // other) { } sets);

  # Several attribute sets, each value of them discharged and merged by its own type.
  mergeEach =
    path: typeOf: sets:
    let
      definitions = name: concatMap (set: if set ? ${name} then discharge set.${name} else [ ]) sets;
      present = filter (name: definitions name != [ ]) (namesIn sets);
    in
    lib.genAttrs present (name: mergeOption (path ++ [ name ]) (typeOf name) (strongest (definitions name)));

  types = rec {
    bool = mkType {
      name = "boolean";
      check = builtins.isBool;
    };
    int = mkType {
      name = "signed integer";
      check = builtins.isInt;
    };
    str = mkType {
      name = "string";
      check = builtins.isString;
    };
    path = mkType {
      name = "absolute path";
      check = value: (builtins.isPath value || builtins.isString value) && lib.hasPrefix "/" (toString value);
    };
    port = mkType {
      name = "16 bit unsigned integer; between 0 and 65535 (both inclusive)";
      check = value: builtins.isInt value && value >= 0 && value <= 65535;
    };
    package = mkType {
      name = "package";
      check = value: typed "stub-derivation" value || (isAttrs value && value.type or null == "derivation");
    };
    anything = mkType {
      name = "anything";
      check = _: true;
    };
    nullOr =
      type:
      mkType {
        name = "null or ${type.name}";
        check = value: value == null || type.check value;
      };
    listOf =
      type:
      mkType {
        name = "list of ${type.name}";
        check = value: builtins.isList value && all type.check value;
        merge = _: concatLists;
      };
    attrsOf =
      type:
      mkType {
        name = "attribute set of ${type.name}";
        check = isAttrs;
        merge = path: sets: mergeEach path (_: type) sets;
      };
    # What a directive of a unit may be: lists are joined.
    unitOption = mkType {
      name = "systemd option";
      check =
        value:
        let
          isAtom = one: one == null || elem (builtins.typeOf one) [
            "bool"
            "int"
            "float"
            "string"
            "path"
          ];
        in
        isAtom value || (builtins.isList value && all isAtom value);
      merge =
        path: values:
        if lib.any builtins.isList values then
          concatMap lib.toList values
        else
          anything.merge path values;
    };
    # What a document can hold.
    document = mkType {
      name = "JSON value";
      check =
        value:
        isAttrs value
        || (builtins.isList value && all document.check value)
        || elem (builtins.typeOf value) [
          "null"
          "bool"
          "int"
          "float"
          "string"
          "path"
        ];
      merge =
        path: values:
        if all isAttrs values then
          mergeEach path (_: document) values
        else if all builtins.isList values then
          concatLists values
        else
          anything.merge path values;
    };
    submodule =
      module:
      mkType {
        name = "submodule";
        check = isAttrs;
        merge =
          path: values:
          evaluate path ([ module ] ++ map (value: { config = value; }) values) { };
      };
  };

  # Modules

  # A module in its long form, and all that it imports.
  collect =
    arguments: module:
    let
      called =
        if builtins.isPath module then
          collectOne (import module)
        else
          collectOne module;
      collectOne =
        one: if isFunction one then one (builtins.intersectAttrs (builtins.functionArgs one) arguments) else one;
      isLong = called ? options || called ? config || called ? freeformType;
      long = {
        options = called.options or { };
        config = if isLong then called.config or { } else removeAttrs called [ "imports" ];
        freeformType = called.freeformType or null;
      };
    in
    [ long ] ++ concatMap (collect arguments) (called.imports or [ ]);

  declared = foldl' (
    one: other:
    one
    // mapAttrs (
      name: value: if one ? ${name} && !isOption value then declared [ one.${name} value ] else value
    ) other
  ) { };

  # Plain attribute sets. Conditions move down to the values, because they may ask for other options, and those for
  # the names that stand here.
  pushDown =
    value:
    if typed "if" value || typed "override" value then
      map (mapAttrs (_: content: value // { inherit content; })) (pushDown value.content)
    else
      [ value ];
  levels = concatMap pushDown;
  below = name: definitions: map (set: set.${name}) (filter (set: set ? ${name}) (levels definitions));

  values =
    path: options: definitions:
    mapAttrs (
      name: option:
      if !isOption option then
        values (path ++ [ name ]) option (below name definitions)
      else
        let
          found = concatMap discharge (below name definitions);
        in
        if found != [ ] then
          mergeOption (path ++ [ name ]) option.type (strongest found)
        else if option ? default then
          mergeOption (path ++ [ name ]) option.type [ option.default ]
        else
          throw "The option `${where (path ++ [ name ])}' is used but not defined"
    ) options;

  undeclared =
    path: options: definitions:
    concatMap (
      name:
      if !(options ? ${name}) then
        [ (where (path ++ [ name ])) ]
      else if isOption options.${name} then
        [ ]
      else
        undeclared (path ++ [ name ]) options.${name} (below name definitions)
    ) (namesIn (levels definitions));

  evaluate =
    path: modules: arguments:
    let
      collected = concatMap (collect (arguments // { inherit config lib; })) modules;
      options = declared (map (module: module.options) collected);
      definitions = map (module: module.config) collected;
      freeform = filter (type: type != null) (map (module: module.freeformType) collected);
      config = values path options definitions;
      unknown = undeclared path options definitions;
    in
    if freeform != [ ] then
      mergeOption path (head freeform) (levels definitions) // config
    else if unknown != [ ] then
      throw "The option `${head unknown}' does not exist"
    else
      config;
in
{
  inherit types;

  evalModules =
    { modules, specialArgs ? { } }:
    {
      config = evaluate [ ] modules specialArgs;
    };

  mkOption = attributes: attributes // { _type = "option"; };
  mkEnableOption =
    what:
    {
      _type = "option";
      type = types.bool;
      default = false;
      description = "Whether to enable ${what}.";
    };
  mkIf = condition: content: {
    _type = "if";
    inherit condition content;
  };
  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };
  mkDefault = content: {
    _type = "override";
    priority = 1000;
    inherit content;
  };
  mkForce = content: {
    _type = "override";
    priority = 50;
    inherit content;
  };
  literalExpression = text: {
    _type = "literalExpression";
    inherit text;
  };
}
