"""A third provider is one file: this one. It runs through a whole ``ai_mux.app``, over sockets.

Then the sentinel of the design's section 8, over the same traffic: every 9-character
piece of every secret is searched for in everything that was logged and answered.
"""

import asyncio
import json
import re
from dataclasses import replace

import pytest
from fakes.clock import FakeClock
from fakes.token_endpoint import TokenEndpoint

from ai_mux.app import build
from ai_mux.config import load
from ai_mux.credentials import oauth
from ai_mux.credentials.credential import Credential
from ai_mux.credentials.document import changed, parse
from ai_mux.logs import Log
from ai_mux.providers import PROVIDERS
from ai_mux.providers.base import Backend, PathRule
from ai_mux.proxy.engine import Engine
from ai_mux.secret import Secret
from ai_mux.wire.answers import Dialect
from ai_mux.wire.headers import Changes

ALICE = "zq7Kx1vBw9sentinel"
STRANGER = "pJ4mYt8Rc2stranger"
FIRST, FIRST_REFRESH = "Wd6uHn3Lf0access", "Gb5eTa1Qo7refresh"
SECOND, THIRD = "Xi8rMk2Vz4renewed", "Nc0jPs5Dy1renewed"
SECRETS = (ALICE, STRANGER, FIRST, FIRST_REFRESH, SECOND, THIRD)


# The provider


class InventedIssuer:
    def read(self, document):
        login = parse(document)
        return Credential(
            access=Secret(login["now"]), refresh=Secret(login["later"]), expires_at=login["until"]
        )

    def write(self, document, credential):
        new = {("now",): credential.access.reveal(), ("later",): credential.refresh.reveal()}
        return changed(document, new | {("until",): credential.expires_at})

    def request(self, credential, reason):
        return {"grant_type": "refresh_token", "refresh_token": credential.refresh.reveal()}

    def renewed(self, credential, answer, now):
        end = now + answer["expires_in"]
        return replace(
            credential,
            access=Secret(answer["access_token"]),
            refresh=Secret(answer["refresh_token"]),
            expires_at=end,
            lifetime_s=answer["expires_in"],
            obtained_at=now,
        )

    def is_permanent(self, status, answer):
        return oauth.is_final(answer)

    def login(self, path):
        return f"run `invented login {path}`"


class Invented:
    name = "invented"
    dialect = Dialect.ANTHROPIC
    token_url = "https://invented.example/token"
    credential_file = "login.json"
    issuer = InventedIssuer()

    def backend(self, *, api_key):
        return Backend(
            base_url="https://invented.example",
            paths=(
                PathRule(path=b"/hm/think", methods=(b"POST",)),
                PathRule(path=b"/of/{id}", methods=(b"GET",)),
            ),
            absent=b"/hm",
            impossible={b"/dream": "Dreams cannot be had."},
        )

    def changes(self, credential):
        return Changes(put=((b"X-Invented-Key", credential.access.reveal().encode()),))


# A whole ai-mux with it


class Run:
    """What went over the wires, and what was logged."""

    def __init__(self):
        self.upstream, self.answers, self.lines = [], [], []

    async def serve(self, reader, writer):
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            length = int(re.search(rb"(?i)content-length: (\d+)|$", head)[1] or 0)
            self.upstream.append(head + await reader.readexactly(length))
            status, body = b"200 OK", b"thought"
            revoked = SECOND if b"/of/" in head else FIRST
            if revoked.encode() in head:  # although its time is not over; says what it got
                status, body = b"401 Unauthorized", head
            elif b"/of/" in head:
                status, body = b"418 Teapot", b"no " + THIRD.encode()
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))

    async def ask(self, port, method, path, *fields, body=""):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        self.answers.append(answer)
        return int(answer.split(b" ")[1]), answer


@pytest.fixture
async def run(tmp_path):
    """Ask everything that the tests below look at, and stop in order."""
    it = Run()
    clock = FakeClock()
    upstream = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    directory = tmp_path / "state" / "invented"
    directory.mkdir(parents=True)
    it.file = directory / "login.json"
    it.file.touch(0o600)
    login = {"now": FIRST, "later": FIRST_REFRESH, "until": clock.wall + 9000, "more": 1}
    it.file.write_text(json.dumps(login))
    async with TokenEndpoint(FIRST_REFRESH) as endpoint:
        endpoint.access = lambda number: (SECOND, THIRD)[number - 1]
        config = tmp_path / "config.json"
        config.touch(0o600)
        config.write_text(json.dumps({
            "listen": "127.0.0.1:0",
            "state_dir": str(tmp_path / "state"),
            "log_level": "debug",
            "users": [{"name": "alice", "token": ALICE}],
            "providers": [{
                "name": "invented", "base_url": f"http://127.0.0.1:{port}/deep", "token_url": endpoint.url,
            }],
        }))  # fmt: skip
        log = Log(level="debug", write=lambda data: it.lines.append(bytes(data)) or len(data), clock=clock)
        providers = {**PROVIDERS, "invented": Invented()}
        app = build(
            load(config, known_providers=tuple(providers)),
            providers=providers,
            clock=clock,
            log=log,
            engine=Engine("asyncio"),
        )
        await app.start()
        at = int(app.addresses[0].rpartition(":")[2])
        own, foreign = f"Authorization: Bearer {ALICE}", f"x-api-key: {STRANGER}"
        it.probe = await it.ask(at, "HEAD", "/invented")
        cookie, query = f"Cookie: {STRANGER}", f"?q={ALICE}"
        it.served = await it.ask(at, "POST", f"/invented/hm/think{query}", own, cookie, body="{}")
        clock.pass_s(61)  # sooner, a 401 would not be about the token
        it.failed = await it.ask(at, "GET", "/invented/of/x", f"X-Api-Key: {ALICE}")
        it.closed = await it.ask(at, "POST", "/invented/files", own)
        it.impossible = await it.ask(at, "POST", "/invented/dream", own)
        it.stranger = await it.ask(at, "POST", "/invented/hm/think", foreign)
        it.malformed = await it.ask(at, "POST", "/invented/hm/think", own, f"{ALICE} : {STRANGER}")
        it.spent = list(endpoint.spent)
        await app.stop()
    upstream.close()
    log.close()
    return it


async def test_a_third_provider_is_one_file(run):
    assert run.probe[0] == 200
    assert run.served[0] == 200 and run.served[1].endswith(b"thought")
    assert run.spent == [FIRST_REFRESH, "refresh-1"]
    first, again, _, other = run.upstream
    assert first.startswith(f"POST /deep/think?q={ALICE} HTTP/1.1\r\n".encode())
    assert again == first.replace(FIRST.encode(), SECOND.encode())
    assert f"\r\nX-Invented-Key: {THIRD}\r\n".encode() in other
    assert other.startswith(b"GET /deep/of/x HTTP/1.1\r\n")
    assert run.failed[0] == 418
    assert run.closed[0] == 403 and run.impossible[0] == 400 and run.stranger[0] == 401
    assert b'"type": "permission_error"' in run.closed[1] and b"\r\nrequest-id: amx_" in run.closed[1]
    saved = json.loads(run.file.read_text())
    assert (saved["now"], saved["more"]) == (THIRD, 1)
    assert saved["later"] != FIRST_REFRESH


async def test_field_note_19_no_piece_of_a_secret_is_logged_or_answered(run):
    """Beyond what the provider itself put into a body of its own, which passes verbatim."""
    logged = b"".join(run.lines)
    assert b'"event":"token.unknown"' in logged and b'"event":"upstream.response"' in logged
    ours = [run.probe, run.served, run.closed, run.impossible, run.stranger, run.malformed]
    for where in (logged, *(answer for _, answer in ours)):
        for secret in SECRETS:
            pieces = (secret[at : at + 9] for at in range(len(secret) - 8))
            found = [piece for piece in pieces if piece.encode() in where]
            assert not found, (found, where)
