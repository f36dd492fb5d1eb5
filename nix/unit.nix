# Reads a systemd unit (systemd.syntax(7)) into attributes, as far as our own unit needs it.
#
# So there is one unit, packaging/systemd/ai-mux.service, and the NixOS module is the same by construction. A
# directive that stands several times is a list. Joined lines are refused rather than misread.
{ lib }:

file:
let
  isSaid = line: line != "" && !lib.hasPrefix "#" line && !lib.hasPrefix ";" line;

  add =
    read: line:
    let
      heading = builtins.match "\\[(.+)]" line;
      directive = builtins.match "([A-Za-z]+)=(.*)" line;
      name = lib.head directive;
      value = lib.last directive;
      section = read.sections.${read.section} or { };
    in
    if heading != null then
      read // { section = lib.head heading; }
    else if directive == null || lib.hasSuffix "\\" line then
      throw "${toString file}: a line is not read: ${line}"
    else
      read
      // {
        sections = read.sections // {
          ${read.section} = section // {
            ${name} = if section ? ${name} then lib.toList section.${name} ++ [ value ] else value;
          };
        };
      };

  lines = lib.filter isSaid (lib.splitString "\n" (builtins.readFile file));
in
(lib.foldl' add {
  section = throw "${toString file}: a directive before the first section";
  sections = { };
} lines).sections
