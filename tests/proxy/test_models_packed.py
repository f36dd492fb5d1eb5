"""How much work a packed body may make: as much as it is long, and no more (each bound by itself)."""

import gzip
import random

import brotli
import pytest
import zstandard

from ai_mux.errors import BadRequest, RequestError, UnsupportedMediaType
from ai_mux.proxy.models import ModelScan

ALLOWED = ("gpt-5?",)
PACKED = {
    b"gzip": gzip.compress,
    b"br": brotli.compress,
    b"zstd": zstandard.ZstdCompressor().compress,
}
# In 200,000 bytes, so that nothing but their number can be too much.
COMMAS = 100_000
NUMBERS = b'"x":[' + b"1," * COMMAS + b"1]"


def verdict(body: bytes, coding: bytes = b"") -> str | type[RequestError]:
    """Return the model that passes, or the error."""
    try:
        scan = ModelScan(coding, ALLOWED)
        for at in range(0, len(body), 10_000):
            scan.feed(body[at : at + 10_000])
            while scan.is_behind:
                scan.go_on()
        scan.finish()
    except RequestError as error:
        return type(error)
    return scan.model


def noise(size: int, dice: random.Random) -> bytes:
    """Return text that packs to half its length and costs nothing to look into."""
    return dice.randbytes(size // 2).hex().encode()


@pytest.mark.parametrize("coding", PACKED)
def test_brackets_and_commas_are_bounded_by_what_was_sent(coding: bytes):
    plain = b'{"model":"gpt-5x",' + NUMBERS + b"}"
    assert verdict(PACKED[coding](plain), coding) is BadRequest
    assert verdict(plain) == "gpt-5x"  # who sends it as it is may
    sent = b'{"model":"gpt-5x","noise":"' + noise(2 * COMMAS, random.Random(3)) + b'",' + NUMBERS + b"}"
    assert verdict(PACKED[coding](sent), coding) == "gpt-5x"  # and who sends much


@pytest.mark.parametrize("coding", PACKED)
def test_what_is_unpacked_is_bounded_by_what_was_sent(coding: bytes):
    plain = b'{"model":"gpt-5x","x":"' + b"x" * 8_000_000 + b'"}'
    assert verdict(PACKED[coding](plain), coding) is UnsupportedMediaType
    assert verdict(plain) == "gpt-5x"
    dice = random.Random(4)
    mixed = b"".join(b"x" * 400_000 + noise(20_000, dice) for _ in range(20))
    sent = b'{"model":"gpt-5x","x":"' + mixed + b'"}'
    assert verdict(PACKED[coding](sent), coding) == "gpt-5x"
