"""The providers of a configuration, key by key."""

import json
from pathlib import Path

import pytest

from ai_mux.config import ProviderConfig, load
from ai_mux.errors import ConfigError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Give every test a home of its own."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def loaded(tmp_path):
    """Load a list of providers, given as JSON can write it."""

    def read(*providers: object, **top: object):
        file = tmp_path / "p.json"
        file.write_text(json.dumps({"providers": providers, **top}))
        file.chmod(0o600)
        return load(file, known_providers=("claude", "chatgpt", "invented"))

    return read


@pytest.fixture
def one(loaded):
    """Load the provider claude with further keys, and return it."""
    return lambda **keys: loaded({"name": "claude", **keys}).providers[0]


@pytest.fixture
def wrong(loaded):
    """Load providers that must be refused, and return why."""

    def read(*providers: object) -> str:
        with pytest.raises(ConfigError) as caught:
            loaded(*providers)
        assert len(caught.value.lines) == 1
        return caught.value.lines[0].partition("p.json:1: ")[2]

    return read


def test_a_name_and_a_mapping_with_a_name_mean_the_same(loaded):
    plain = ProviderConfig(
        name="claude",
        credentials=None,
        api_key_file=None,
        paths=None,
        headers={},
        base_url=None,
        token_url=None,
        proxy=None,
        ca_file=None,
    )
    assert loaded("claude").providers == loaded({"name": "claude"}).providers == (plain,)


def test_providers_keep_their_order(loaded):
    assert [p.name for p in loaded("invented", {"name": "claude"}, "chatgpt").providers] == [
        "invented",
        "claude",
        "chatgpt",
    ]


@pytest.mark.parametrize("name", ["gemini", "Claude", "", "claude ", None, 5, ["claude"]])
def test_what_is_no_provider_is_refused_with_those_that_are(wrong, name):
    assert wrong({"name": name}).startswith("providers[0].name: ")
    assert "chatgpt, claude, invented" in wrong("gemini")


def test_a_mapping_without_a_name_is_refused(wrong):
    assert wrong({"paths": "all"}).startswith("providers[0].name: is missing")


@pytest.mark.parametrize("second", ["claude", {"name": "claude", "paths": "all"}])
def test_a_provider_listed_twice_is_an_error(wrong, second):
    assert wrong("claude", second) == "providers[1]: 'claude' is listed already in line 1; remove one"


@pytest.mark.parametrize(
    ("first", "second"),
    [("credentials", "credentials"), ("credentials", "api_key_file"), ("api_key_file", "credentials")],
)
def test_a_login_s_file_belongs_to_one_provider(wrong, tmp_path, first, second):
    (tmp_path / "link").symlink_to("made-up.json")
    said = wrong(
        {"name": "claude", first: str(tmp_path / "made-up.json")},
        {"name": "chatgpt", second: str(tmp_path / "link")},
    )
    assert said.startswith(f"providers[1].{second}: is also the file of 'claude'")


def test_a_key_may_be_for_two_providers_and_other_files_do_not_matter(loaded):
    both = loaded(
        {"name": "claude", "api_key_file": "/made-up/key"},
        {"name": "chatgpt", "api_key_file": "/made-up/key"},
    )
    assert {one.api_key_file for one in both.providers} == {Path("/made-up/key")}
    loaded({"name": "claude", "credentials": "/made-up/a"}, {"name": "chatgpt", "credentials": "/made-up/b"})
    loaded("claude", "chatgpt", "invented")


def test_no_providers_is_a_warning(loaded):
    assert ["every provider's path is a 404" in line for line in loaded().warnings] == [True]


# Credentials


def test_credentials_may_be_missing_but_no_directory(one, wrong, home):
    assert one(credentials="~/made-up/auth.json").credentials == home / "made-up" / "auth.json"
    assert wrong({"name": "claude", "credentials": "~"}).startswith(
        "providers[0].credentials: is a directory"
    )


def test_credentials_that_cannot_be_looked_at_are_left_to_their_use(one, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "a.json", tmp_path / ("a" * 300)):
        assert one(credentials=str(path)).credentials == path


@pytest.mark.parametrize("vendors", [".claude", ".codex"])
def test_field_note_3_credentials_of_another_program_are_warned_about(loaded, home, tmp_path, vendors):
    direct = loaded({"name": "claude", "credentials": f"~/{vendors}/c.json"})
    above = loaded("claude", state_dir=f"~/{vendors}")
    (home / vendors / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(home / vendors / "deep")
    linked = loaded({"name": "claude", "credentials": f"{tmp_path}/link/c.json"})
    (tmp_path / "elsewhere.json").touch()
    (home / vendors / "out.json").symlink_to(tmp_path / "elsewhere.json")
    outward = loaded({"name": "claude", "credentials": f"~/{vendors}/out.json"})
    for config in (direct, above, linked, outward):
        assert [f"~/{vendors}, where another program" in line for line in config.warnings] == [True]


def test_credentials_elsewhere_are_not_warned_about(loaded):
    assert loaded("claude", {"name": "chatgpt", "credentials": "~/.claude-of-mine/a.json"}).warnings == ()


# API key file


def test_an_api_key_file_need_not_exist_and_is_not_read(one, home, tmp_path):
    assert one().api_key_file is None
    assert one(api_key_file="~/claude.key").api_key_file == home / "claude.key"
    (tmp_path / "broken.key").write_bytes(b"\xff\n\n")
    assert one(api_key_file=str(tmp_path / "broken.key")).api_key_file == tmp_path / "broken.key"


@pytest.mark.parametrize("value", ["", "/", "a\nb", None, 5, True, ["a"], {}])
def test_an_api_key_file_is_a_path_of_a_file(wrong, value):
    assert wrong({"name": "claude", "api_key_file": value}).startswith("providers[0].api_key_file: ")


def test_an_api_key_file_and_credentials_exclude_each_other(wrong):
    found = wrong({"name": "claude", "credentials": "/c.json", "api_key_file": "/claude.key"})
    assert found.startswith("providers[0].api_key_file: excludes 'credentials'")


def test_an_api_key_beside_another_programs_login_is_not_warned_about(loaded):
    config = loaded({"name": "claude", "api_key_file": "~/.claude/k"}, state_dir="~/.claude")
    assert config.warnings == ()


# Proxy


def test_a_proxy_is_read_and_shown_without_its_credentials(one):
    provider = one(proxy="socks5h://invented-user:invented-pass@proxy.example")
    assert provider.proxy is not None
    assert (provider.proxy.scheme, provider.proxy.authority) == ("socks5h", "proxy.example:1080")
    assert provider.proxy.password is not None
    assert provider.proxy.password.reveal() == "invented-pass"
    assert "invented" not in repr(provider)


@pytest.mark.parametrize(
    "value", ["", "proxy.example:3128", "ftp://u:invented-pass@p", 5, None, ["http://p"]]
)
def test_a_proxy_that_is_none_is_refused_without_its_value(wrong, value):
    found = wrong({"name": "claude", "proxy": value})
    assert found.startswith("providers[0].proxy: ")
    assert "invented-pass" not in found


@pytest.mark.parametrize(
    ("key", "meant"), [("api_key", "api_key_file"), ("Proxy", "proxy"), ("proxies", "proxy")]
)
def test_a_key_that_is_nearly_one_of_these_is_hinted_at(wrong, key, meant):
    assert f"did you mean '{meant}'?" in wrong({"name": "claude", key: "x"})


# Paths


def test_paths_are_the_default_all_or_a_list(one):
    assert one().paths is None
    assert one(paths="all").paths == ("*",)
    listed = ["/v1/messages", "/v1/files/*", "/*", "/v1/a%20b:c@d~!$&'()+,;=[]{}|^`<>\"._-"]
    assert one(paths=listed).paths == tuple(listed)


@pytest.mark.parametrize("paths", ["ALL", "/v1/messages", [], {}, 5, None, True])
def test_paths_of_another_form_are_refused(wrong, paths):
    assert wrong({"name": "claude", "paths": paths}).startswith("providers[0].paths: ")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "v1",
        "all",
        "*",
        "/a*b",
        "/a**",
        "/a?x=1",
        "/a#b",
        "/a b",
        "/a\\b",
        "/ä",
        "/a//b",
        "/..",
        "/a/../b",
        "/./a",
        "/%2e%2E/a",
        "/a/.%2e",
        "/a%2Fb",
        "/a%5cb",
        "/a%00",
        5,
        None,
        [],
    ],
)
def test_a_path_that_can_never_be_served_is_refused(wrong, path):
    assert wrong({"name": "claude", "paths": ["/ok", path]}).startswith("providers[0].paths[1]: ")


def test_a_path_that_repeats_the_prefix_is_warned_about(loaded):
    config = loaded({"name": "claude", "paths": ["/claude/v1/messages"]})
    assert ["is '/claude' too much?" in line for line in config.warnings] == [True]
    assert loaded({"name": "claude", "paths": ["/claudex"]}).warnings == ()


# Headers


def test_headers_keep_their_spelling_and_null_removes(one):
    headers = {"X-Team": "blue", "x_a.b": "", "anthropic-beta": None, "X-Blank": "a  b"}
    assert one(headers=headers).headers == headers
    assert "blue" not in repr(one(headers=headers))


FORBIDDEN = [
    "host",
    "authorization",
    "x-api-key",
    "cookie",
    "proxy-authorization",
    "proxy-anything",
    "chatgpt-account-id",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "accept-encoding",
    "sec-websocket-key",
    "sec-websocket-anything",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-anything",
    "via",
    "user-agent",
    "x-app",
    "originator",
]


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_header_is_refused_in_any_case(wrong, name):
    for spelled in (name, name.upper(), name.title()):
        for value in ("x", None):
            found = wrong({"name": "claude", "headers": {spelled: value}})
            assert found.startswith(f"providers[0].headers.{spelled}: must not be set")


@pytest.mark.parametrize(
    "name", ["proxyless", "x-forwarded", "hosts", "viable", "x-te", "content-type", "accept"]
)
def test_a_header_that_only_looks_forbidden_is_taken(one, name):
    assert one(headers={name: "x"}).headers == {name: "x"}


@pytest.mark.parametrize("name", ["", "a b", "a:b", "ä", "a\nb", "(a)", 'a"b', "a\0"])
def test_a_header_name_is_a_token_of_rfc_9110(wrong, name):
    assert "is no field name" in wrong({"name": "claude", "headers": {name: "x"}})


@pytest.mark.parametrize(
    "value", ["a\nb", "a\r\nX: y", "\0", "ä", " a", "a ", "a\tb", "\x7f", 5, 1.5, True, ["a"], {}]
)
def test_a_header_value_is_a_clean_string(wrong, value):
    assert wrong({"name": "claude", "headers": {"X-A": value}}).startswith("providers[0].headers.X-A: ")


def test_a_header_named_twice_is_refused_in_any_case(wrong):
    assert "duplicate field" in wrong({"name": "claude", "headers": {"X-A": "1", "x-a": "2"}})


@pytest.mark.parametrize("headers", [[], "X: y", None, 5])
def test_headers_are_a_mapping(wrong, headers):
    assert wrong({"name": "claude", "headers": headers}).startswith("providers[0].headers: must be a mapping")


# URLs


@pytest.mark.parametrize("key", ["base_url", "token_url"])
@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.test",
        "https://api.example.test:8443/a/b/",
        "https://192.0.2.1",
        "https://[2001:db8::1]:8443/x",
        "http://127.0.0.1:9",
        "http://127.8.7.6/a%20b",
        "http://[::1]:9/",
        "http://localhost:9",
        "http://LOCALHOST",
    ],
)
def test_a_url_is_https_or_loopback(one, key, url):
    assert getattr(one(**{key: url}), key) == url


@pytest.mark.parametrize("key", ["base_url", "token_url"])
@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.test",
        "//a.test",
        "ftp://a.test",
        "http://a.test",
        "http://192.0.2.1",
        "http://0.0.0.0",
        "https://",
        "https:///a",
        "https://:80",
        "https://a:b",
        "https://a:0",
        "https://a:99999",
        "https://a:",
        "https://u@a.test",
        "https://u:p@a.test",
        "https://@a.test",
        "https://a.test/#f",
        "https://a.test#",
        "https://a b.test",
        "https://a.test/ä",
        "https://a.test/\\b",
        "https://[::1",
        "https://[x]/",
        "https://a..b",
        "http://127.0.0.1.evil.test",
        "http://localhost.evil.test",
        "http://127.0.0.1@evil.test",
        "https://256.1.1.1",
        "https://a.test\n",
        5,
        None,
        ["https://a.test"],
    ],
)
def test_any_other_url_is_refused(wrong, key, url):
    assert wrong({"name": "claude", key: url}).startswith(f"providers[0].{key}: ")


@pytest.mark.parametrize("url", ["https://a.test/?", "https://a.test/?a=b"])
def test_only_a_token_endpoint_may_have_a_query(one, wrong, url):
    # RFC 6749, section 3.2, allows one there; a prefix for paths has no use for it.
    assert one(token_url=url).token_url == url
    assert "must not have a query" in wrong({"name": "claude", "base_url": url})


# CA file


def test_a_ca_file_holds_certificates(one, wrong, tmp_path):
    good = Path(__file__).parent / "test_config_tls.pem"
    assert one(ca_file=str(good)).ca_file == good
    commented = tmp_path / "commented.pem"  # as collections of roots are
    commented.write_text("# Tanúsítvány\n" + good.read_text(), encoding="utf-8")
    assert one(ca_file=str(commented)).ca_file == commented
    (tmp_path / "bad.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    (tmp_path / "none.pem").write_text("")
    for name, advice in (("bad.pem", "PEM"), ("none.pem", "PEM"), ("missing.pem", "cannot be read")):
        found = wrong({"name": "claude", "ca_file": str(tmp_path / name)})
        assert found.startswith("providers[0].ca_file: ")
        assert advice in found


@pytest.mark.parametrize("key", ["credentials", "api_key_file", "ca_file"])
@pytest.mark.parametrize("secret", ["sk-ant-api03-made-up", "eyJhbGciOi.made.up", "0123456789abcdef" * 2])
def test_a_secret_in_the_place_of_its_file_is_refused_and_not_repeated(wrong, key, secret):
    said = wrong({"name": "claude", key: secret})
    assert "name that file here" in said
    assert secret not in said


def test_a_file_that_is_there_may_be_called_like_a_key(one, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sk-keys").touch()
    assert one(api_key_file="sk-keys").api_key_file == tmp_path / "sk-keys"
