"""A stop in the midst of a start, where ai-mux is the first process of a container and has no init.

A start is held up at a known place by a pipe that nobody writes to, so no moment has to be met.
Source: pid_namespaces(7).
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT_S = 20
AS_IF_KILLED = 128 + signal.SIGTERM

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and os.environ.get("AI_MUX_PACKAGING") != "required",
    reason="only root can make a namespace of processes",
)


@contextlib.contextmanager
def first_process(directory, config, *verb):
    """Run ai-mux as process 1 of a namespace, with modules of ``directory`` first; yield who waits."""
    command = [sys.executable, "-P", "-m", "ai_mux", *verb, "--config", config]
    starter = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(directory)},
    )  # fmt: skip
    try:
        yield starter
    finally:
        starter.kill()  # and with it, by --kill-child, what it started
        starter.communicate()  # to the end of what it prints: nothing of it is left


@contextlib.contextmanager
def open_for_writing(pipe, starter):
    """Wait until the process waits at the pipe, and hold the other end."""
    deadline, held = time.monotonic() + LIMIT_S, None
    while held is None:
        with contextlib.suppress(OSError):  # nobody reads yet
            held = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        assert starter.poll() is None, starter.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    try:
        yield
    finally:
        os.close(held)


def stop(starter):
    """Send the first process a SIGTERM from outside, and return how it ends."""
    (child,) = Path(f"/proc/{starter.pid}/task/{starter.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGTERM)
    return starter.wait(timeout=LIMIT_S)


@pytest.fixture
def pipe(tmp_path, needed):
    needed("unshare")
    os.mkfifo(tmp_path / "pipe", 0o600)
    return tmp_path / "pipe"


# From the first that the command line imports to the last before there is a loop. The version's needs email.
@pytest.mark.parametrize("module", ["json", "click", "email", "httptools", "uvloop"])
def test_a_stop_while_it_imports_ends_it(tmp_path, pipe, module):
    (tmp_path / f"{module}.py").write_text(f"open({str(pipe)!r}).read()\n")
    config = tmp_path / "config.yaml"
    config.write_text(f'listen: "127.0.0.1:0"\nstate_dir: "{tmp_path}/state"\nproviders: []\n')
    with first_process(tmp_path, config) as starter, open_for_writing(pipe, starter):
        assert stop(starter) == AS_IF_KILLED


def test_a_stop_while_it_reads_its_configuration_ends_it(tmp_path, pipe):
    with first_process(tmp_path, pipe) as starter, open_for_writing(pipe, starter):
        assert stop(starter) == AS_IF_KILLED


def test_a_verb_that_is_stopped_ends_too(tmp_path, pipe):
    with first_process(tmp_path, pipe, "check") as starter, open_for_writing(pipe, starter):
        assert stop(starter) == AS_IF_KILLED
