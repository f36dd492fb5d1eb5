"""The benchmark's WebSocket client: opens a tunnel as Codex does, and compares every byte of it."""

import time

import frames
from load import Target
from streams import Paced


class Tunnel(Paced):
    """One tunnel, from its handshake to its closing handshake."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._path = (target.tunnel or "").encode()
        self._in_tunnel = False
        self._said = 0
        self._begun = False

    def ask(self, pace: bytes) -> None:
        """Send the handshake."""
        seq = self.number()
        request = frames.handshake(
            path=self._path, host=self._host, token=self._token, task=b"ws %d %b" % (seq, pace), seq=seq
        )
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Note when each frame came."""
        now_ns = time.monotonic_ns()
        received = self._received + data
        if not self._in_tunnel:
            end = received.find(b"\r\n\r\n") + 4
            if end < 4:
                self._received = received
                return
            head, received = received[:end], received[end:]
            proof = b"\r\nsec-websocket-accept: %b\r\n" % frames.accept(self._seq).lower()
            if not head.startswith(b"HTTP/1.1 101 ") or proof not in head.lower():
                self.fail(f"no tunnel: {head[:500]!r}")
                return
            self._in_tunnel = True
            self._say(frames.asking(self._seq))
            self.carried.requests += 1
            self.carried.unread += 1  # until it says what it used
        if not self._begun:
            beginning = frames.beginning(self._seq)
            if len(received) < len(beginning):
                self._received = received
                return
            if not received.startswith(beginning):
                self.fail(f"another beginning than the provider's: {received!r}")
                return
            received = received[len(beginning) :]
            self._begun = True
            self.heard(0, now_ns)
        while len(received) >= frames.FRAME_BYTES and not self.is_at_end:
            frame, received = received[: frames.FRAME_BYTES], received[frames.FRAME_BYTES :]
            if not self._take(frame, now_ns):
                return
        self._received = received
        if self.is_at_end and received:
            self._close(received)

    def _take(self, frame: bytes, now_ns: int) -> bool:
        try:
            sent_ns = frames.sent_ns(frame)
        except ValueError:
            sent_ns = -1
        if frame != frames.from_provider(self._seq, self._count, sent_ns):
            self.fail(f"another frame than the provider's: {frame!r}")
            return False
        if frames.is_answered(self._count):
            self._say(frames.from_client(self._seq, self._count))
        self.heard(sent_ns, now_ns)
        return True

    def _say(self, said: bytes) -> None:
        self._transport.write(said)
        self._said += len(said)

    def _close(self, received: bytes) -> None:
        """Answer the provider's close frame, which says whether all that we sent has arrived."""
        expected = frames.ending(self._seq) + frames.closing(self._said)
        if received == expected:
            self.carried.unread -= 1
            self.carried.add(frames.usage(self._seq))
            self._transport.write(frames.last_of_client(self._seq))
            self.finished.set_result(None)
        elif not expected.startswith(received):
            self.fail(f"another end than the provider's: {received!r}")
