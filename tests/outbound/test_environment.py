"""Which proxy a target gets: the configured one, else what the environment says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.errors import ConfigError
from ai_mux.outbound import chosen_proxy, parse_proxy

API = "https://api.example.test/v1"


def chosen(url: str = API, **environ: str) -> str | None:
    proxy = chosen_proxy(None, url, environ)
    return None if proxy is None else str(proxy)


@pytest.mark.parametrize(
    ("environ", "meant"),
    [
        ({}, None),
        ({"https_proxy": "http://a:1"}, "http://a:1"),
        ({"HTTPS_PROXY": "http://a:1"}, "http://a:1"),
        ({"all_proxy": "socks5h://a:1"}, "socks5h://a:1"),
        ({"ALL_PROXY": "socks5://a:1"}, "socks5://a:1"),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "http://low:1"),
        ({"all_proxy": "http://low:1", "ALL_PROXY": "http://up:1"}, "http://low:1"),
        ({"HTTPS_PROXY": "http://https:1", "all_proxy": "http://all:1"}, "http://https:1"),
        ({"https_proxy": "", "HTTPS_PROXY": " ", "ALL_PROXY": "http://all:1"}, "http://all:1"),
        ({"http_proxy": "http://a:1", "HTTP_PROXY": "http://b:1"}, None),
        ({"HTTPS_PROXY": "proxy.example:3128"}, "http://proxy.example:3128"),
        ({"HTTPS_PROXY": "u:p@proxy.example"}, "http://…@proxy.example:80"),
        ({"HTTPS_PROXY": " http://a:1/ "}, "http://a:1"),
        ({"https_Proxy": "http://a:1"}, None),
    ],
)
def test_https_targets_take_https_proxy_then_all_proxy_and_lower_case_first(environ, meant):
    assert chosen(**environ) == meant


def test_what_is_configured_wins_over_everything():
    ours = parse_proxy("socks5://ours:1")
    environ = {"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}
    for url in (API, "http://127.0.0.1:9", "https://localhost"):
        assert chosen_proxy(ours, url, environ) is ours


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.7.6:99", "localhost", "LOCALHOST:1", "[::1]:1", "[::ffff:127.0.0.1]"]
)
def test_loopback_is_never_proxied_by_the_environment(host):
    for scheme in ("http", "https"):
        assert chosen(f"{scheme}://{host}/x", https_proxy="http://a:1", all_proxy="http://a:1") is None


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("*", API),
        ("example.test", API),
        (".example.test", API),
        ("*.example.test", API),
        ("EXAMPLE.Test", API),
        ("api.example.test", API),
        (".api.example.test", API),
        ("api.example.test.", API),
        ("test", API),
        ("x, \t,  example.test ,y", API),
        ("x example.test", API),
        ("example.test", "https://API.Example.TEST."),
        ("example.test:443", API),
        ("example.test:8443", "https://api.example.test:8443"),
        ("192.0.2.1", "https://192.0.2.1"),
        ("192.0.2.1:443", "https://192.0.2.1"),
        ("192.0.2.0/24", "https://192.0.2.99"),
        ("192.0.2.7/24", "https://192.0.2.99"),
        ("192.0.2.0/24", "https://[::ffff:192.0.2.99]"),
        ("2001:db8::1", "https://[2001:db8::1]"),
        ("[2001:db8::1]", "https://[2001:db8::1]"),
        ("[2001:db8::1]:443", "https://[2001:DB8:0::1]"),
        ("2001:db8::/32", "https://[2001:db8::99]:8443"),
    ],
)
def test_no_proxy_lists_names_suffixes_addresses_and_networks(no_proxy, url):
    assert chosen(url, https_proxy="http://a:1") is not None
    assert chosen(url, https_proxy="http://a:1", no_proxy=no_proxy) is None
    assert chosen(url, https_proxy="http://a:1", NO_PROXY=no_proxy) is None


@pytest.mark.parametrize(
    ("no_proxy", "url"),
    [
        ("", API),
        (" , ,", API),
        ("xample.test", API),
        ("other.test", API),
        ("api.example.test.evil", API),
        ("example.test:80", API),
        ("example.test:443", "https://api.example.test:8443"),
        (".", API),
        ("*.", API),
        ("a*", API),
        ("192.0.2.0/24", API),
        ("192.0.2.0/24", "https://192.0.3.1"),
        ("192.0.2.1:80", "https://192.0.2.1"),
        ("2.1", "https://192.0.2.1"),
        ("192.0.2.0/99", "https://192.0.2.1"),
        ("192.0.2.*", "https://192.0.2.1"),
        ("<local>", API),
        ("::1", "https://[2001:db8::1]"),
        ("[2001:db8::1]:80", "https://[2001:db8::1]"),
        ("0.0.0.0/0", "https://[2001:db8::1]"),
        ("db8::1", "https://[2001:db8::1]"),
    ],
)
def test_no_proxy_lists_nothing_else(no_proxy, url):
    assert chosen(url, https_proxy="http://a:1", no_proxy=no_proxy) == "http://a:1"


def test_no_proxy_in_lower_case_wins():
    assert chosen(https_proxy="http://a:1", no_proxy="other.test", NO_PROXY="*") == "http://a:1"
    assert chosen(https_proxy="http://a:1", no_proxy="", NO_PROXY="*") is None


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "value", ["socks4://u:invented@p", "http://", "ht tp", "u:invented@p:x", "http://u:inv/ented@p"]
)
def test_a_broken_variable_is_an_error_that_names_it_and_not_its_value(name, value):
    with pytest.raises(ConfigError) as caught:
        chosen(**{name: value})
    assert caught.value.lines[0].startswith(f"environment: {name}: ")
    assert "inv" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_broken_variable_that_is_not_used_does_no_harm():
    broken = {"all_proxy": "socks4://p"}
    assert chosen(https_proxy="http://a:1", **broken) == "http://a:1"
    assert chosen("https://localhost", **broken) is None
    assert chosen(no_proxy="*", **broken) is None
    assert chosen_proxy(parse_proxy("http://b"), API, broken) == parse_proxy("http://b")


@given(st.text(max_size=40), st.sampled_from([API, "https://192.0.2.1", "https://[2001:db8::1]:8443"]))
def test_any_no_proxy_is_read(no_proxy, url):
    assert chosen(url, https_proxy="http://a:1", no_proxy=no_proxy) in {None, "http://a:1"}
