"""A request's body: every byte once and in order, a bounded copy for the replay, and nothing held back."""

import pytest
from engine.wires import turns
from hypothesis import given
from hypothesis import strategies as st

from ai_mux.errors import BadRequest, Forbidden, TooLarge
from ai_mux.proxy.turn import Turn
from ai_mux.proxy.upload import KEPT_BYTES_EACH, ReplayBudget, Upload
from ai_mux.wire.chunked import LAST_CHUNK, ChunkDecoder, chunk
from ai_mux.wire.http1 import CHUNKED

HEAD = b"POST / HTTP/1.1\r\n\r\n"
KIB = 1024
MIB = 1024 * 1024


class Provider:
    """Takes what is sent, as an upstream connection does."""

    def __init__(self) -> None:
        self.heard = b""
        self.writes = 0
        self.told_complete = 0

    def write(self, data: bytes) -> None:
        assert not self.told_complete, "nothing follows the end"
        self.heard += data
        self.writes += 1

    def request_sent(self) -> None:
        self.told_complete += 1

    @property
    def body(self) -> bytes:
        assert self.heard.startswith(HEAD)
        return self.heard[len(HEAD) :]


def upload(length: int, *, limit: int = 64 * MIB, budget: ReplayBudget | None = None) -> Upload:
    return Upload(length, limit=limit, budget=budget or ReplayBudget())


def left(budget: ReplayBudget) -> int:
    """Return how much of the budget can still be taken."""
    low, high = 0, 1 << 40
    while low < high:
        middle = (low + high + 1) // 2
        if budget.take(middle):
            budget.give(middle)
            low = middle
        else:
            high = middle - 1
    return low


def unchunked(framed: bytes) -> bytes:
    decoder = ChunkDecoder()
    body = b"".join(decoder.feed(framed))
    assert decoder.done
    assert not decoder.rest
    return body


pieces = st.lists(st.binary(min_size=1, max_size=30), min_size=1, max_size=8)


@given(pieces, st.integers(0, 8), st.binary(max_size=9))
def test_a_body_of_known_length_arrives_whole_whenever_the_provider_does(pieces, when, behind):
    body = b"".join(pieces)
    budget = ReplayBudget(1000)
    one = upload(len(body), budget=budget)
    provider = Provider()
    pieces[-1] += behind
    for index, piece in enumerate(pieces):
        if index == when:
            one.attach(provider, HEAD)
        last = index == len(pieces) - 1
        assert one.complete is False
        assert one.feed(piece) == (behind if last else b"")
    if when >= len(pieces):
        one.attach(provider, HEAD)
    assert provider.body == body
    assert (one.complete, one.received, provider.told_complete) == (True, len(body), 1)
    one.forget()
    assert left(budget) == 1000


@given(pieces, st.integers(0, 8), st.integers(1, 40), st.binary(max_size=9))
def test_a_chunked_body_is_framed_anew_and_arrives_whole(pieces, when, step, behind):
    wire = (
        b"".join(b"%x;ext\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        + b"0\r\nTrailer: x\r\n\r\n"
        + behind
    )
    one = upload(CHUNKED)
    provider = Provider()
    rest = b""
    for index, at in enumerate(range(0, len(wire), step)):
        if index == when:
            one.attach(provider, HEAD)
        if one.complete:
            rest += wire[at : at + step]
        else:
            rest += one.feed(wire[at : at + step])
    if not provider.heard:
        one.attach(provider, HEAD)
    assert unchunked(provider.body) == b"".join(pieces)
    assert (rest, one.received, provider.told_complete) == (behind, len(b"".join(pieces)), 1)


def test_nothing_is_held_back_once_the_provider_is_there():
    one, provider = upload(10), Provider()
    one.attach(provider, HEAD)
    assert provider.heard == HEAD
    one.feed(b"abc")
    assert provider.body == b"abc"
    assert provider.told_complete == 0
    one.feed(b"defghij")
    assert provider.body == b"abcdefghij"


def test_a_small_body_goes_out_with_its_head_in_one_write():
    one, provider = upload(3), Provider()
    one.feed(b"abc")
    one.attach(provider, HEAD)
    assert (provider.heard, provider.writes) == (HEAD + b"abc", 1)


def test_a_request_without_a_body_is_complete_at_once():
    one, provider = upload(0), Provider()
    assert one.complete
    one.attach(provider, HEAD)
    assert (provider.heard, provider.told_complete) == (HEAD, 1)


# The replay


@given(pieces, st.integers(0, 8), st.booleans())
def test_a_replay_sends_the_same_bytes_and_goes_on_from_there(pieces, when, chunked):
    body = b"".join(pieces)
    wire = [chunk(piece) for piece in pieces] + [LAST_CHUNK] if chunked else pieces
    one = upload(CHUNKED if chunked else len(body))
    first, second = Provider(), Provider()
    one.attach(first, HEAD)
    for index, piece in enumerate(wire):
        if index == when:
            one.detach()
        one.feed(piece)
    one.detach()
    assert one.replayable
    one.attach(second, HEAD)
    assert (unchunked(second.body) if chunked else second.body) == body
    assert second.told_complete == 1
    assert second.heard.startswith(first.heard)


def test_the_copy_of_one_request_is_bounded_and_dropped_whole():
    budget = ReplayBudget()
    free = left(budget)
    one, provider = upload(40 * MIB, budget=budget), Provider()
    one.attach(provider, HEAD)
    for _ in range(KEPT_BYTES_EACH // MIB - 1):
        one.feed(bytes(MIB))
    assert one.replayable
    assert free - KEPT_BYTES_EACH < left(budget) <= free - KEPT_BYTES_EACH + MIB
    one.feed(bytes(MIB + 1))
    assert not one.replayable
    assert left(budget) == free
    one.feed(b"x")
    assert len(provider.body) == KEPT_BYTES_EACH + 2
    assert not one.is_full


def test_a_copy_made_of_single_bytes_counts_for_what_it_costs():
    budget = ReplayBudget(MIB)
    one = upload(MIB, budget=budget)
    for _ in range(MIB // 32):
        one.feed(b"x")
    assert one.is_full


def test_all_copies_together_are_bounded_and_a_late_one_does_without():
    budget = ReplayBudget(10 * KIB)
    first, second = (upload(20 * KIB, budget=budget) for _ in range(2))
    providers = [Provider(), Provider()]
    first.attach(providers[0], HEAD)
    second.attach(providers[1], HEAD)
    first.feed(b"a" * 8 * KIB)
    second.feed(b"b" * 8 * KIB)
    assert (first.replayable, second.replayable) == (True, False)
    assert (providers[0].body, providers[1].body) == (b"a" * 8 * KIB, b"b" * 8 * KIB)
    first.forget()
    assert left(budget) == 10 * KIB


def test_what_cannot_be_copied_while_nobody_takes_it_stops_the_reading_and_is_not_lost():
    budget = ReplayBudget(10 * KIB)
    one, provider = upload(20 * KIB, budget=budget), Provider()
    one.feed(b"a" * 8 * KIB)
    assert not one.is_full
    one.feed(b"b" * 8 * KIB)
    assert one.is_full
    one.attach(provider, HEAD)
    assert not one.is_full
    assert provider.body == b"a" * 8 * KIB + b"b" * 8 * KIB
    one.feed(b"c" * 4 * KIB)
    assert provider.body[16 * KIB :] == b"c" * 4 * KIB
    assert provider.told_complete == 1
    assert (one.replayable, left(budget)) == (False, 10 * KIB)


@pytest.mark.parametrize("times", [1, 2])
def test_forgetting_gives_everything_back_once(times):
    budget = ReplayBudget(100 * KIB)
    one = upload(50 * KIB, budget=budget)
    one.feed(b"a" * 30 * KIB)
    assert 69 * KIB < left(budget) <= 70 * KIB
    for _ in range(times):
        one.forget()
    assert (left(budget), one.replayable) == (100 * KIB, False)


def test_no_budget_stays_taken_whatever_happens():
    budget = ReplayBudget(200)
    for length in (10, 99, 200, CHUNKED):
        one = upload(length, budget=budget, limit=150)
        one.attach(Provider(), HEAD)
        one.feed(chunk(b"a" * 60) if length == CHUNKED else b"a" * 60)
        one.detach()
        if not one.complete:
            one.feed(chunk(b"b" * 60) if length == CHUNKED else b"b" * 60)
        one.detach()
        one.forget()
        assert left(budget) == 200


# What is refused


@pytest.mark.parametrize("step", [1, 1000])
def test_a_chunked_body_over_the_limit_is_refused_however_small_its_pieces(step):
    one, provider = upload(CHUNKED, limit=100), Provider()
    one.attach(provider, HEAD)
    wire = chunk(b"a" * 60) + chunk(b"b" * 40)
    for at in range(0, len(wire), step):
        one.feed(wire[at : at + step])
    with pytest.raises(TooLarge):
        for byte in chunk(b"c"):
            one.feed(bytes([byte]))
    assert b"c" not in provider.body[-5:]


def test_a_chunked_body_of_exactly_the_limit_is_taken():
    one = upload(CHUNKED, limit=100)
    one.feed(chunk(b"a" * 100) + LAST_CHUNK)
    assert one.complete


@pytest.mark.parametrize("broken", [b"x\r\n", b"+1\r\na\r\n", b"1\r\nab\r\n", b"1\na", b"-1\r\n", b"0\r\n\n"])
def test_a_broken_chunked_body_is_a_400_and_its_end_is_never_announced(broken):
    one, provider = upload(CHUNKED), Provider()
    one.attach(provider, HEAD)
    one.feed(chunk(b"good"))
    with pytest.raises(BadRequest):
        one.feed(broken)
    assert (one.complete, provider.told_complete) == (False, 0)
    assert not provider.body.endswith(LAST_CHUNK)


# What is looked into


class Scan:
    """Looks for a mark, as ``ModelScan`` looks for the model; another one is refused."""

    def __init__(self, known: bytes = b"K", refused: bytes = b"R", *, step: int = 100) -> None:
        self.seen = self._unseen = b""
        self.finished = False
        self._known, self._refused, self._step = known, refused, step

    @property
    def is_known(self) -> bool:
        return self._known in self.seen

    @property
    def is_behind(self) -> bool:
        return bool(self._unseen)

    def feed(self, data: bytes) -> None:
        assert not self.is_behind
        self._unseen = data
        self.go_on()

    def go_on(self) -> None:
        step, self._unseen = self._unseen[: self._step], self._unseen[self._step :]
        self.seen += step
        if self._refused in step:
            raise Forbidden("no")

    def finish(self) -> None:
        assert not self.is_behind
        if not self.is_known:
            raise BadRequest("not known")
        self.finished = True


class Suspicious(Provider):
    """Takes nothing that was not looked into before, and no end before the scan's."""

    def __init__(self, scan: Scan, *, chunked: bool) -> None:
        super().__init__()
        self._scan, self._decoder = scan, ChunkDecoder() if chunked else None
        self._got = b""

    def write(self, data: bytes) -> None:
        super().write(data)
        body = data.removeprefix(HEAD)
        self._got += body if self._decoder is None else b"".join(self._decoder.feed(body))
        assert self._scan.seen.startswith(self._got)
        assert self._scan.finished or self._decoder is None or not self._decoder.done

    def request_sent(self) -> None:
        super().request_sent()
        assert self._scan.finished


@given(pieces, st.integers(0, 8), st.integers(0, 8), st.booleans(), st.integers(1, 8), st.integers(0, 8))
def test_nothing_passes_that_was_not_looked_into(pieces, examined, attached, chunked, step, patience):
    body = b"".join(pieces).replace(b"R", b"r") + b"K"
    wire = [chunk(body[at : at + 7]) for at in range(0, len(body), 7)] + [LAST_CHUNK]
    if not chunked:
        wire = [body[at : at + 7] for at in range(0, len(body), 7)]
    one, scan = upload(CHUNKED if chunked else len(body)), Scan(step=step)
    provider = Suspicious(scan, chunked=chunked)
    behind = b""
    for index, piece in enumerate(wire):
        if index == examined:
            one.examine(scan)
        if index == examined + attached:
            one.attach(provider, HEAD)
        behind += one.feed(piece + (b"next" if index == len(wire) - 1 else b""))
        for _ in range(patience):
            behind += one.look_on() if one.is_behind else b""
    if examined >= len(wire):
        one.examine(scan)
    if examined + attached >= len(wire):
        one.attach(provider, HEAD)
    while one.is_behind:
        assert not one.complete
        behind += one.look_on()
    assert one.complete
    assert behind == b"next"
    assert scan.seen == body
    assert (unchunked(provider.body) if chunked else provider.body) == body
    assert provider.told_complete == 1
    one.detach()
    again = Provider()
    one.attach(again, HEAD)
    assert again.heard == provider.heard


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("late", [True, False])
def test_of_what_is_refused_nothing_passes_from_there_on(chunked, late):
    scan = Scan()
    one, provider = upload(CHUNKED if chunked else 9), Suspicious(scan, chunked=chunked)
    framed = chunk if chunked else bytes
    one.examine(scan)
    one.feed(framed(b"aKa"))
    if late:
        one.attach(provider, HEAD)
    with pytest.raises(Forbidden):
        one.feed(framed(b"aRa"))
    assert b"R" not in provider.heard
    assert not provider.told_complete


@pytest.mark.parametrize("chunked", [True, False])
def test_the_last_piece_stays_where_the_whole_is_refused(chunked):
    scan = Scan(known=b"never")
    one, provider = upload(CHUNKED if chunked else 6), Suspicious(scan, chunked=chunked)
    framed = chunk if chunked else bytes
    one.examine(scan)
    one.attach(provider, HEAD)
    one.feed(framed(b"aaa"))
    last = framed(b"bbb") + (LAST_CHUNK if chunked else b"")
    with pytest.raises(BadRequest):
        one.feed(last)
    assert b"b" not in provider.heard
    assert not provider.told_complete


@pytest.mark.parametrize("chunked", [True, False])
def test_what_came_before_is_looked_into_at_once(chunked):
    one = upload(CHUNKED if chunked else 4)
    one.feed(chunk(b"aaR") if chunked else b"aaR")
    with pytest.raises(Forbidden):
        one.examine(Scan())
    whole = upload(CHUNKED if chunked else 3)
    whole.feed(chunk(b"aaa") + LAST_CHUNK if chunked else b"aaa")
    with pytest.raises(BadRequest):
        whole.examine(Scan())


async def test_the_wait_ends_in_a_later_turn_once_what_is_looked_for_is_known():
    one, order = upload(10), []

    async def wait() -> None:
        await one.known()
        order.append("known")

    one.examine(Scan())
    Turn(wait()).start()
    one.feed(b"aaa")
    await turns(3)
    one.feed(b"aKa")
    order.append("fed")
    await turns(3)
    assert order == ["fed", "known"]
    Turn(wait()).start()  # it is known: nobody waits
    assert order == ["fed", "known", "known"]


async def test_nobody_waits_where_nothing_is_looked_for_or_nothing_more_comes():
    for one in (upload(10), upload(0)):
        await one.known()


def test_while_it_is_waited_for_reading_goes_on_without_room_for_a_copy():
    budget = ReplayBudget(0)
    one, provider = upload(6, budget=budget), Provider()
    one.feed(b"aa")
    assert one.is_full
    one.examine(Scan())
    assert not one.is_full
    one.feed(b"aK")
    assert one.is_full  # until there is somebody to send it to
    one.attach(provider, HEAD)
    one.feed(b"bb")
    assert provider.body == b"aaaKbb"
