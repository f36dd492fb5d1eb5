"""nix/module.nix: settings become what ai-mux itself reads, and its unit is the packaged one."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest
from documents import ROOT, blocks
from nix_evaluation import UNIT, EvaluationError, Nix, as_nix, directives
from ruamel.yaml import YAML

from ai_mux import config
from ai_mux.config import KEYS
from ai_mux.errors import ConfigError
from ai_mux.logs import masked_headers
from ai_mux.providers import PROVIDERS

# As the description of this program has it, word by word.
PROMISED = """
{
  services.ai-mux = {
    enable = true;
    settings = {
      listen = ":8080";
      state_dir = "/var/lib/ai-mux";
      providers = [ "claude" "chatgpt" ];
      users = [
        { name = "alice"; token = "alice-secret-token-at-least-16"; }
      ];
    };
  };
}
"""
CREDENTIALS = "/run/credentials/ai-mux.service"
# What a renewed login, the audit log and the lines of a unit need of a path.
PLAIN = "without .., blanks and any of % $"
USERS = [
    {"name": "alice", "token_sha256": "e43ba655685691a6861be266b2696e1909c9c8d0e2eec81c0fa3e386d6cdd2f4"}
]


@pytest.fixture
def nix(needed, tmp_path):
    return Nix(program=needed("nix-instantiate"), directory=tmp_path)


@pytest.fixture
def system(nix):
    """Evaluate a system, by settings and by what stands beside them in services.ai-mux."""

    def evaluate(settings=None, *, more="", **options):
        given = {"enable": True} | ({} if settings is None else {"settings": settings}) | options
        return nix.evaluate(f"nixos {{ services.ai-mux = {as_nix(given)}; {more} }}")

    return evaluate


def written(system):
    return json.loads(system["etc"]["ai-mux/config.json"]["source"])


def read(document, directory):
    """Let ai-mux read a configuration, whose handed-over tokens lie in a directory."""
    path = directory / "config.json"
    path.touch(0o600)
    path.write_text(json.dumps(document).replace(CREDENTIALS, str(directory)))
    return config.load(path, known_providers=PROVIDERS)


# What must work as it stands


def test_the_promised_example_works_as_it_stands(nix, tmp_path):
    system = nix.evaluate(f"nixos {PROMISED}")
    assert system["failed"] == []
    made = read(written(system), tmp_path)
    assert made.listen.text == ":8080"
    assert made.state_dir == Path("/var/lib/ai-mux")
    assert [provider.name for provider in made.providers] == ["claude", "chatgpt"]
    assert [user.name for user in made.users] == ["alice"]
    assert system["unit"]["serviceConfig"]["ExecStart"].endswith(
        "/bin/ai-mux --config /etc/ai-mux/config.json"
    )
    assert system["unit"]["serviceConfig"]["StateDirectory"] == "ai-mux"
    assert system["unit"]["wantedBy"] == ["multi-user.target"]
    assert system["ports"] == []


def test_without_enable_nothing_is_there(nix):
    system = nix.evaluate('nixos { services.ai-mux.settings.listen = ":8080"; }')
    assert system["unit"] is None
    assert (system["etc"], system["packages"], system["failed"], system["warnings"]) == ({}, [], [], [])


def _documented():
    for document in ("README.md", "docs/configuration.en.md"):
        for number, block in enumerate(blocks("yaml", document=document)):
            yield pytest.param(block, id=f"{document}-{number}")


@pytest.mark.parametrize("block", list(_documented()))
def test_every_configuration_of_the_documentation_passes_unchanged(block, system):
    settings = YAML(typ="safe").load(block)
    if not set(settings) <= set(KEYS[""]):
        pytest.skip("not a configuration")
    settings["state_dir"] = "/var/lib/ai-mux"
    made = written(system(settings))
    for holder in [*made.get("users", []), made.get("admin", {})]:
        if "token_file" in holder:
            assert holder.pop("token_file").startswith(CREDENTIALS)
    for holder in [*settings.get("users", []), settings.get("admin", {})]:
        holder.pop("token_file", None)
    assert made == settings


def test_a_state_directory_may_stand_in_either_place(system):
    for made in (
        system({"state_dir": "/var/lib/gateway"}),
        system({"users": USERS}, stateDir="/var/lib/gateway"),
    ):
        assert written(made)["state_dir"] == "/var/lib/gateway"
        assert made["unit"]["serviceConfig"]["StateDirectory"] == "gateway"
        assert made["users"]["users"]["ai-mux"]["home"] == "/var/lib/gateway"
        assert made["failed"] == []


def test_one_outside_of_var_lib_is_made_and_may_be_written(system):
    made = system({"state_dir": "/srv/ai-mux"}, user="gateway", group="staff")
    assert made["tmpfiles"] == ["d /srv/ai-mux 0700 gateway staff -"]
    assert made["unit"]["serviceConfig"]["ReadWritePaths"] == ["/srv/ai-mux"]
    assert made["unit"]["serviceConfig"]["StateDirectory"] == []


def test_a_settings_file_is_used_as_it_is(system):
    made = system(settingsFile="/run/secrets/ai-mux.yaml")
    assert made["unit"]["serviceConfig"]["ExecStart"].endswith(" --config /run/secrets/ai-mux.yaml")
    assert (made["etc"], made["failed"], made["warnings"]) == ({}, [], [])


def test_a_package_of_one_s_own_is_run(nix):
    system = nix.evaluate(
        'nixos { services.ai-mux = { enable = true; settings.listen = ":8080"; '
        'package = pkgs.git // { meta.mainProgram = "ai-mux"; }; }; }'
    )
    assert system["unit"]["serviceConfig"]["ExecStart"].startswith("/nix/store/stub-git-")


# The unit


def test_the_unit_is_the_packaged_one_directive_by_directive(system):
    unit = system({"users": USERS})["unit"]
    packaged = directives(UNIT)

    def once_or_more(values):
        return values if isinstance(values, list) else [values]

    service = {name: once_or_more(value) for name, value in unit["serviceConfig"].items()}
    # What NixOS needs otherwise: its own paths, and credentials where there are some.
    ours = {"ExecStart", "ExecReload", "LoadCredential", "ReadWritePaths"}
    assert {name: value for name, value in service.items() if name not in ours} == {
        name: value for name, value in packaged["Service"].items() if name not in ours
    }
    assert re.sub(r"^\S+/", "", service["ExecReload"][0]) == re.sub(
        r"^\S+/", "", packaged["Service"]["ExecReload"][0]
    )
    assert service["LoadCredential"] == service["ReadWritePaths"] == []
    rest = {"Description": [unit["description"]]} | {
        name: [" ".join(unit[name.lower()])]
        for name in ("Documentation", "After", "Wants")
        if unit[name.lower()]
    }
    assert (
        rest | {name: once_or_more(value) for name, value in unit["unitConfig"].items()} == packaged["Unit"]
    )
    assert unit["wantedBy"] == packaged["Install"]["WantedBy"][0].split()


@pytest.mark.parametrize(
    "settings",
    [
        {"users": [{"name": "bob", "token_file": "/run/secrets/bob"}]},
        {"listen": ":443", "state_dir": "/srv/ai-mux", "audit": "/srv/audit/ai-mux.jsonl"},
    ],
)
def test_systemd_finds_nothing_wrong_with_the_unit(system, needed, tmp_path, settings):
    unit = system(settings)["unit"]
    service = unit["serviceConfig"] | {"ExecStart": "/bin/true", "ExecReload": "/bin/true"}
    lines = ["[Service]"]
    for name, value in service.items():
        for one in value if isinstance(value, list) else [value]:
            lines.append(f"{name}={str(one).lower() if isinstance(one, bool) else one}")
    file = tmp_path / "ai-mux.service"
    file.write_text("\n".join([*lines, ""]))
    command = [needed("systemd-analyze"), "verify", "--man=no", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_stop_has_time_for_a_renewal(system):
    assert system({"users": USERS})["unit"]["serviceConfig"]["TimeoutStopSec"] == "90"


@pytest.mark.parametrize(
    "text", ["[Service]\nExecStart=/bin/true \\\nA=b\n", "[Service]\nnonsense\n", "Type=notify\n"]
)
def test_a_unit_that_would_be_misread_is_refused(nix, tmp_path, text):
    (tmp_path / "some.service").write_text(text)
    with pytest.raises(EvaluationError, match=r"some\.service"):
        nix.evaluate(f"import {ROOT}/nix/unit.nix {{ inherit lib; }} {tmp_path}/some.service")


def test_each_directive_can_be_overridden(system):
    theirs = {"TimeoutStopSec": "3min", "LoadCredential": ["tls:/etc/tls.key"]}
    more = f"systemd.services.ai-mux.serviceConfig = {as_nix(theirs)};"
    users = [{"name": "bob", "token_file": "/run/secrets/bob"}]
    service = system({"users": users}, more=more)["unit"]["serviceConfig"]
    assert service["TimeoutStopSec"] == "3min"
    bobs = f"users.{hashlib.sha256(b'bob').hexdigest()}.token_file:/run/secrets/bob"
    assert set(service["LoadCredential"]) == {bobs, "tls:/etc/tls.key"}


def test_it_runs_as_the_user_that_is_named_and_makes_its_own_only(system):
    made = system({"users": USERS})
    assert (made["unit"]["serviceConfig"]["User"], made["unit"]["serviceConfig"]["Group"]) == (
        "ai-mux",
        "ai-mux",
    )
    assert made["users"]["users"]["ai-mux"]["isSystemUser"] is True
    assert made["users"]["groups"] == {"ai-mux": {}}
    other = system({"users": USERS}, user="gateway", group="staff")
    assert (other["unit"]["serviceConfig"]["User"], other["unit"]["serviceConfig"]["Group"]) == (
        "gateway",
        "staff",
    )
    assert other["users"] == {"users": {}, "groups": {}}
    assert other["etc"]["ai-mux/config.json"]["group"] == "staff"


def test_the_configuration_is_not_for_everyone_and_the_command_is_there(system):
    made = system({"users": USERS})
    assert made["etc"]["ai-mux/config.json"]["mode"] == "0440"
    assert len(made["packages"]) == 1 and made["packages"][0].startswith("ai-mux-")


@pytest.mark.parametrize(
    ("settings", "privileged"),
    [
        ({"listen": ":443"}, True),
        ({"listen": "127.0.0.1:1023"}, True),
        ({"listen": "[::1]:80"}, True),
        ({"listen": ":8443", "admin": {"listen": "127.0.0.1:918"}}, True),
        ({"listen": ":1024"}, False),
        ({"listen": "127.0.0.1:8080"}, False),
        ({"listen": "unix:/run/ai-mux/a.sock:80"}, False),
        ({"listen": "127.0.0.1:0"}, False),
        ({"users": USERS}, False),
    ],
)
def test_a_port_below_1024_needs_one_capability_and_no_other_does(system, settings, privileged):
    service = system(settings)["unit"]["serviceConfig"]
    packaged = directives(UNIT)["Service"]
    if privileged:
        assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
        # It would be one of a user namespace in which no port of the host is.
        assert service["PrivateUsers"] is False
    else:
        assert "AmbientCapabilities" not in service or service["AmbientCapabilities"] == ""
        assert [service["CapabilityBoundingSet"]] == packaged["CapabilityBoundingSet"]


def test_what_is_written_elsewhere_may_be_written(system):
    settings = {
        "providers": ["claude", {"name": "chatgpt", "credentials": "/secure/chatgpt/auth.json"}],
        "audit": "/srv/audit/ai-mux.jsonl",
    }
    paths = system(settings)["unit"]["serviceConfig"]["ReadWritePaths"]
    assert set(paths) == {"-/secure/chatgpt", "-/srv/audit"}


def test_a_change_of_the_configuration_reloads_and_only_what_a_reload_leaves_out_restarts(system):
    def triggers(**settings):
        unit = system({"users": USERS} | settings)["unit"]
        return unit["restartTriggers"], unit["reloadTriggers"]

    before, reloads = triggers()
    assert len(reloads) == 1
    for change in ({"log_level": "debug"}, {"limits": {"concurrent": 2}}, {"usage": {"keep": "1d"}}):
        assert triggers(**change)[0] == before, change
    for change in ({"listen": ":9"}, {"admin": {"listen": "[::1]:1"}}, {"usage": {"enabled": False}}):
        assert triggers(**change)[0] != before, change


# Tokens


def test_tokens_by_reference_are_handed_over_by_systemd(system, tmp_path):
    settings = {
        "users": [
            {"name": "alice", "token_file": "/run/secrets/alice"},
            {"name": "carol", "token_sha256": USERS[0]["token_sha256"]},
            {"name": "dave", "token_file": "/run/secrets/dave"},
        ],
        "admin": {"listen": "127.0.0.1:9180", "token_file": "/run/secrets/prometheus"},
    }
    made = system(settings)
    assert made["warnings"] == []
    handed = dict(one.split(":") for one in made["unit"]["serviceConfig"]["LoadCredential"])
    assert set(handed.values()) == {"/run/secrets/alice", "/run/secrets/dave", "/run/secrets/prometheus"}
    # What systemd does with them.
    for name, file in handed.items():
        (tmp_path / name).touch(0o400)
        (tmp_path / name).write_text(f"made-up-token-of-{Path(file).name}")
    loaded = read(written(made), tmp_path)
    assert [user.name for user in loaded.users] == ["alice", "carol", "dave"]
    assert loaded.admin is not None
    assert not json.dumps(written(made)).count("/run/secrets")


def test_a_user_s_token_is_handed_over_under_a_name_that_no_other_user_gets(system):
    def handed(*names):
        made = system({"users": [{"name": name, "token_file": f"/run/secrets/{name}"} for name in names]})
        return {user["name"]: user["token_file"] for user in written(made)["users"]}, made["unit"]

    both, unit = handed("alice", "bob")
    assert len(set(both.values())) == 2
    # Reloaded before the restart, the running service has the tokens of before.
    assert handed("bob")[0] == {"bob": both["bob"]}
    assert handed("eve", "bob")[0]["eve"] not in both.values()
    # Such a change restarts it, and another order of the same users does not.
    assert handed("bob")[1]["serviceConfig"] != unit["serviceConfig"]
    assert handed("bob", "alice")[1]["serviceConfig"] == unit["serviceConfig"]


def test_what_systemd_hands_over_already_is_left_alone(system):
    made = system({"users": [{"name": "alice", "token_file": f"{CREDENTIALS}/mine"}]})
    assert written(made)["users"][0]["token_file"] == f"{CREDENTIALS}/mine"
    assert made["unit"]["serviceConfig"]["LoadCredential"] == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"users": [*USERS, {"name": "bob", "token": "made-up-token-of-bob"}]}, "users[1].token"),
        ({"admin": {"listen": "[::]:1", "token": "made-up-token-of-nobody"}}, "admin.token"),
        ({"providers": [{"name": "claude", "proxy": "http://u:made-up-token@h"}]}, "providers[0].proxy"),
        (
            {"providers": [{"name": "claude", "headers": {"X-Secret": "made-up-token", "X-Team": "blue"}}]},
            "providers[0].headers.X-Secret.",
        ),
        (
            {"providers": [{"name": "claude", "headers": {"X-A": None, "X-Gate": "Bearer made-up-token"}}]},
            "providers[0].headers.X-Gate.",
        ),
    ],
)
def test_a_secret_in_the_store_is_warned_about_and_not_repeated(system, settings, named):
    (warning,) = system(settings)["warnings"]
    assert named in warning and "token_file" in warning
    assert "made-up-token" not in warning


def test_a_file_that_nix_copies_into_the_store_is_warned_about(nix, tmp_path):
    (tmp_path / "token").write_text("made-up-token-of-alice")
    for where, named in (
        (f'settings.users = [ {{ name = "alice"; token_file = {tmp_path}/token; }} ]', "users[0].token_file"),
        (
            f'settings.providers = [ {{ name = "claude"; api_key_file = {tmp_path}/token; }} ]',
            "providers[0].api_key_file",
        ),
        (f"settings.tls = {{ enabled = true; key_path = {tmp_path}/token; }}", "tls.key_path"),
        (f"settingsFile = {tmp_path}/token", "settingsFile"),
    ):
        system = nix.evaluate(f"nixos {{ services.ai-mux = {{ enable = true; {where}; }}; }}")
        (warning,) = system["warnings"]
        assert named in warning


@pytest.mark.parametrize("value", ["blue", "Bearer x", "basic x", "sk-x", "ask-x"])
@pytest.mark.parametrize(
    "name", ["X-Team", "X-Authority", "x-token", "X-SECRET", "X-Key", "X-Cookies", "X-Jwt", "Anthropic-Beta"]
)
def test_the_fields_that_are_warned_about_are_those_that_the_log_masks(system, name, value):
    (shown,) = masked_headers([(name.encode(), value.encode())])
    made = system({"users": USERS, "providers": [{"name": "claude", "headers": {name: value}}]})
    assert bool(made["warnings"]) == shown.endswith("[masked]")


def test_hashes_and_references_are_no_secrets(system):
    providers = [
        "claude",
        {"name": "chatgpt", "proxy": "socks5://127.0.0.1:1080", "api_key_file": "/etc/key"},
    ]
    tls = {"enabled": True, "cert_path": "/etc/tls.crt", "key_path": "/etc/tls.key"}
    assert system({"users": USERS, "providers": providers, "tls": tls})["warnings"] == []


# What is refused


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ({"listen": ":8080"}, {"settingsFile": "/etc/a.yaml"}, "settings and settingsFile are both given"),
        (None, {}, "there is no configuration"),
        ({}, {}, "there is no configuration"),
        ({"state_dir": "~/.ai-mux"}, {}, "must begin with /"),
        ({"state_dir": "/var/lib/a"}, {"stateDir": "/var/lib/b"}, "settings.state_dir and stateDir differ"),
        ({"listen": "unix:/run/a.sock"}, {"openFirewall": True}, "needs a port"),
        ({"listen": "[::]:0"}, {"openFirewall": True}, "needs a port"),
        (None, {"settingsFile": "/etc/a.yaml", "openFirewall": True}, "needs a port"),
        ({"listen": ":8080"}, {"openFirewall": True}, "would let everyone in the network use the logins"),
        ({"listen": "127.evil.example:80", "users": []}, {"openFirewall": True}, "would let everyone"),
        ({"audit": "/audit.jsonl"}, {}, 'audit = "/audit.jsonl"'),
        ({"audit": "audit.jsonl"}, {}, "begins with /"),
        ({"providers": [{"credentials": "/auth.json"}]}, {}, 'providers[0].credentials = "/auth.json"'),
        ({"providers": ["claude", {"credentials": "/a/../etc/x"}]}, {}, "providers[1].credentials"),
        ({"audit": "/srv//a.jsonl"}, {}, "audit"),
        ({"audit": "/./a.jsonl"}, {}, "audit"),
        ({"audit": "/srv/%h/a.jsonl"}, {}, PLAIN),
        ({"audit": "/srv/a b/c.jsonl"}, {}, PLAIN),
        ({"audit": "/srv/a\nExecStartPre=/bin/x/b"}, {}, PLAIN),
        ({"state_dir": "/var/lib/../../etc"}, {}, PLAIN),
        ({"state_dir": "/var/lib"}, {}, "one of its own"),
        ({"state_dir": "/"}, {}, "one of its own"),
        ({"users": USERS}, {"stateDir": "/srv/ai mux"}, PLAIN),
        ({"users": USERS}, {"stateDir": '/srv/"'}, PLAIN),
        ({"users": USERS}, {"user": "ai mux"}, "user and group must consist of"),
        ({"users": USERS}, {"group": "staff\nd /etc"}, "user and group must consist of"),
        (None, {"settingsFile": "/etc/ai mux.yaml"}, PLAIN),
        (None, {"settingsFile": "/etc/${HOME}.yaml"}, PLAIN),
        ({"users": [{"name": "bob", "token_file": "/etc/b\nUser=root"}]}, {}, "a token_file must be"),
        ({"admin": {"token_file": "/etc/%n"}}, {}, "a token_file must be"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_reason(nix, settings, options, said):
    given = {"enable": True} | options | ({} if settings is None else {"settings": settings})
    # As NixOS does it: assertions come before anything that they keep from being evaluated.
    failed = nix.evaluate(f"(nixos {{ services.ai-mux = {as_nix(given)}; }}).failed")
    assert len(failed) == 1
    assert said in failed[0] and failed[0].startswith("services.ai-mux: ")


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ('providers = [ { name = "claude"; credentials = FILE; } ]', "providers[0].credentials"),
        ("audit = FILE", "audit"),
    ],
)
def test_what_is_written_to_cannot_be_in_the_store(nix, tmp_path, settings, where, quoted):
    file = tmp_path / "auth.json"
    file.write_text("{}")
    settings = settings.replace("FILE", f'"${{{file}}}"' if quoted else str(file))
    failed = nix.evaluate(
        f"(nixos {{ services.ai-mux = {{ enable = true; settings = {{ {settings}; }}; }}; }}).failed"
    )
    assert len(failed) == 1
    assert failed[0].endswith(f"nothing in the store can be; name files outside, in quotes: {where}")


def test_the_firewall_opens_the_port_that_is_listened_on(system):
    made = system({"listen": ":8443", "users": USERS}, openFirewall=True)
    assert (made["ports"], made["failed"]) == ([8443], [])
    assert system({"users": USERS}, openFirewall=True)["ports"] == [8080]
    for local in ("127.0.0.1:8080", "[::1]:8080", "localhost:8080"):
        assert system({"listen": local}, openFirewall=True)["failed"] == []
    assert system({"listen": ":8443"})["ports"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("enabel = true;", "services.ai-mux.enabel' does not exist"),
        ('enable = "yes";', "services.ai-mux.enable' is not of type"),
        ("enable = true; settings = [ ];", "services.ai-mux.settings' is not of type"),
        ('enable = true; settings.listen = ":1"; openFirewall = 8080;', "openFirewall' is not of type"),
        ('enable = true; settingsFile = "relative.yaml";', "settingsFile' is not of type"),
        ("enable = true; settings.users = x: x;", "users' is not of type"),
        ("enable = true; stateDir = 7;", "stateDir' is not of type"),
        ('enable = true; settings.listen = ":1"; package = "ai-mux";', "package' is not of type"),
    ],
)
def test_options_that_do_not_exist_or_are_of_another_type_are_refused(nix, options, said):
    with pytest.raises(EvaluationError, match=re.escape(said)):
        nix.evaluate(f"nixos {{ services.ai-mux = {{ {options} }}; }}")


def test_settings_of_several_modules_are_one_configuration(nix):
    system = nix.evaluate(
        """
        nixos {
          imports = [
            { services.ai-mux.settings.log_level = "debug"; }
            { services.ai-mux.settings.limits.concurrent = lib.mkDefault 8; }
            ({ lib, ... }: { services.ai-mux.settings.limits = lib.mkIf true { requests = [ "60/min" ]; }; })
          ];
          services.ai-mux = { enable = true; settings.limits.concurrent = 4; };
        }
        """
    )
    made = written(system)
    assert made["log_level"] == "debug"
    assert made["limits"] == {"concurrent": 4, "requests": ["60/min"]}


def test_wrong_settings_are_left_to_ai_mux_which_says_more(system, tmp_path):
    made = system({"lisen": ":8080", "users": ["alice", {"nam": "bob"}]})
    assert made["failed"] == []
    with pytest.raises(ConfigError, match="lisen"):
        read(written(made), tmp_path)
