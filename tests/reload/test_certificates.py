"""Certificates, and TLS itself, change for who connects then."""

import hashlib
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from engine.wires import Ended, TlsWire, Wire
from whole import claude


def certificate(directory: Path, name: str, make) -> dict[str, object]:
    key, cert = make(directory, name)
    return {"enabled": True, "cert_path": str(cert), "key_path": str(key)}


@pytest.fixture(scope="module")
def make_certificate():
    """Make a throwaway certificate with openssl."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl command to make a certificate with")

    def make(directory: Path, name: str) -> tuple[Path, Path]:
        key, cert = directory / f"{name}.key", directory / f"{name}.pem"
        command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-nodes", "-days", "2", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        key.chmod(0o600)
        return key, cert

    return make


async def seen_certificate(port: int) -> tuple[str, TlsWire]:
    """Connect over TLS and return the digest of the certificate that is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    plain = await Wire.to(port)
    wire = await TlsWire(plain.sock, context, server=False).handshake()
    shown = wire.tls.getpeercert(binary_form=True)
    assert shown is not None
    return hashlib.sha256(shown).hexdigest(), wire


async def test_a_renewed_certificate_is_shown_to_who_connects_then(mux, origin, make_certificate):
    tls = certificate(mux.directory, "first", make_certificate)
    mux.configure(providers=[claude(origin)], tls=tls)
    await mux.start()
    first, kept = await seen_certificate(mux.port)
    make_certificate(mux.directory, "first")  # in place, as an ACME client does
    still, other = await seen_certificate(mux.port)
    assert still == first
    await mux.reload()
    second, new = await seen_certificate(mux.port)
    assert second != first
    for wire in (kept, other, new):
        assert (await mux.ask_over(wire, "POST /claude/v1/messages")).status == 200
        wire.close()


async def test_tls_is_switched_on_and_off_for_who_connects_then(mux, origin, make_certificate):
    await mux.start()
    plain = await Wire.to(mux.port)
    assert (await mux.ask_over(plain, "POST /claude/v1/messages")).status == 200
    mux.configure(providers=[claude(origin)], tls=certificate(mux.directory, "c", make_certificate))
    await mux.reload()
    _, wire = await seen_certificate(mux.port)
    assert (await mux.ask_over(wire, "POST /claude/v1/messages")).status == 200
    assert mux.app.addresses == [f"https://127.0.0.1:{mux.port}"]
    with pytest.raises(Ended):
        await mux.ask()
    mux.configure(providers=[claude(origin)])
    await mux.reload()
    assert (await mux.ask()).status == 200
    for one in (plain, wire):  # began before, and go on
        assert (await mux.ask_over(one, "POST /claude/v1/messages")).status == 200
        one.close()
