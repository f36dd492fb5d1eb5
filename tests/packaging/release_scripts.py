"""The programs of scripts/release, for tests that look into them."""

import contextlib
import importlib.util
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType
from typing import Final

from documents import ROOT

SCRIPTS: Final = ROOT / "scripts" / "release"
RELEASE_PYTHON: Final = ROOT / ".venv" / "release" / "bin" / "python"  # made by scripts/release/build


def script(name: str) -> ModuleType:
    """Return one of them as a module."""
    spec = importlib.util.spec_from_file_location(f"release_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for what its annotations mean
    spec.loader.exec_module(module)
    return module


class Answer(BaseHTTPRequestHandler):
    """A request to somebody who is made up."""

    def answer(self, body: bytes, *, status: int = 200, kind: str = "application/json") -> None:
        """Answer it."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def serving(answers: type[Answer]) -> Iterator[ThreadingHTTPServer]:
    """Serve on loopback until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
