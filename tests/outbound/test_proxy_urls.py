"""A proxy's URL: what it says, what it may not say, and that nobody reads its password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.outbound import InvalidProxy, OutboundProxy, parse_proxy


def plain(proxy: OutboundProxy) -> tuple[str, str, int]:
    return proxy.scheme, proxy.host, proxy.port


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("http://proxy.example:3128", ("http", "proxy.example", 3128)),
        ("http://proxy.example", ("http", "proxy.example", 80)),
        ("https://proxy.example", ("https", "proxy.example", 443)),
        ("socks5://proxy.example", ("socks5", "proxy.example", 1080)),
        ("socks5h://localhost", ("socks5h", "localhost", 1080)),
        ("HTTP://Proxy.Example:3128/", ("http", "proxy.example", 3128)),
        ("http://192.0.2.1:65535", ("http", "192.0.2.1", 65535)),
        ("socks5://[2001:db8::1]:9", ("socks5", "2001:db8::1", 9)),
        ("https://[::1]", ("https", "::1", 443)),
        ("http://my_proxy:1", ("http", "my_proxy", 1)),
    ],
)
def test_a_url_names_scheme_host_and_port(url, meant):
    proxy = parse_proxy(url)
    assert plain(proxy) == meant
    assert proxy.username is proxy.password is None


@pytest.mark.parametrize("scheme", ["http", "https", "socks5", "socks5h"])
@pytest.mark.parametrize(
    ("userinfo", "name", "password"),
    [
        ("ann:made-up", "ann", "made-up"),
        ("ann:made:up", "ann", "made:up"),
        ("a%40n:p%2F%3a%25%20", "a@n", "p/:% "),
    ],
)
def test_credentials_are_percent_decoded(scheme, userinfo, name, password):
    proxy = parse_proxy(f"{scheme}://{userinfo}@proxy.example:1")
    assert proxy.username is not None
    assert proxy.password is not None
    assert (proxy.username.reveal(), proxy.password.reveal()) == (name, password)
    assert plain(proxy) == (scheme, "proxy.example", 1)


@pytest.mark.parametrize(("userinfo", "password"), [("ann", ""), ("ann:", ""), ("%C3%A4:p%e2%82%ac", "p€")])
def test_http_takes_a_user_name_alone_and_any_language_and_socks_does_not(userinfo, password):
    proxy = parse_proxy(f"http://{userinfo}@proxy.example")
    assert proxy.password is not None
    assert proxy.password.reveal() == password
    with pytest.raises(InvalidProxy, match="1 to 255 ASCII characters"):
        parse_proxy(f"socks5://{userinfo}@proxy.example")


def test_socks_takes_credentials_of_at_most_255_characters_each():
    assert parse_proxy(f"socks5://{'u' * 255}:{'%40' * 255}@p").username
    for userinfo in ("u" * 256 + ":p", "u:" + "%40" * 256):
        with pytest.raises(InvalidProxy, match="1 to 255 ASCII characters"):
            parse_proxy(f"socks5h://{userinfo}@p")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "invented",
        "invented.example:3128",
        "//invented",
        "ftp://invented",
        "socks://invented",
        "socks4://invented",
        "socks5:invented",
        "http:/invented",
        "http://",
        "http:///",
        "http://:3128",
        "http://invented@",
        "http://u:invented@",
        "http://u:invented@:3128",
        "http://u:inv@ented@host",
        "http://u:inv/ented@host",
        "http://u:inv?ented@host",
        "http://u:inv#ented@host",
        "http://u:inv ented@host",
        "http://u:inv%ented@host",
        "http://u:invented%zz@host",
        "http://u:invented%ff@host",
        "http://u:invented%0a@host",
        "http://u:invented%c2%85@host",
        "http://u%3Ainvented:x@host",
        "http://u:inventéd@host",
        "http://:invented@host",
        "http://@invented",
        "http://invented:0",
        "http://invented:65536",
        "http://invented:",
        "http://invented:x",
        "http://invented:-1",
        "http://invented:+1",
        "http://[::1",
        "http://[invented]",
        "http://::1",
        "http://[fe80::1%25invented]",
        "http://invented..example",
        "http://256.1.1.1",
        "http://invented/path",
        "http://invented//",
        "http://invented?",
        "http://invented#",
        "http://invented\n",
        " http://invented",
        "http://inv\tented",
    ],
)
def test_what_is_no_proxy_is_refused_in_words_without_the_value(url):
    with pytest.raises(InvalidProxy) as caught:
        parse_proxy(url)
    assert "inv" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_whatever_shows_a_proxy_shows_no_credentials():
    proxy = parse_proxy("https://invented-user:invented-pass@[2001:db8::1]:8443")
    for shown in (str(proxy), repr(proxy), f"{proxy}", f"{[proxy]}", proxy.authority):
        assert "invented" not in shown
        assert "[2001:db8::1]:8443" in shown
    assert str(proxy) == "https://…@[2001:db8::1]:8443"
    assert str(parse_proxy("http://p")) == "http://p:80"


def test_proxies_are_told_apart_by_all_that_they_say():
    """Connections are shared by the same proxy only, credentials included."""
    urls = [
        "http://p",
        "https://p:80",
        "http://q",
        "http://p:81",
        "http://a:b@p",
        "http://a:c@p",
        "http://b:b@p",
    ]
    assert len({parse_proxy(url) for url in urls}) == len(urls)
    assert len({parse_proxy("http://a:b@p"), parse_proxy("http://a:b@p:80/")}) == 1


@given(st.text(max_size=60))
def test_any_text_is_a_proxy_or_refused(text):
    for written in (text, f"http://{text}", f"socks5://u:{text}@h"):
        try:
            proxy = parse_proxy(written)
        except InvalidProxy:
            continue
        assert parse_proxy(f"{proxy.scheme}://{proxy.authority}").host == proxy.host
