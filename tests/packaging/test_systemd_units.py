"""The units themselves, judged by systemd's own tools, and what the page changes in them."""

import re
import subprocess
import sys

import pytest
from documents import ROOT, blocks

from ai_mux.config import load
from ai_mux.credentials.refresh import FINISH_WAIT_S

UNITS = ROOT / "packaging" / "systemd"
PAGE = "docs/how-to/systemd.md"
# Of 10. systemd calls up to 2.0 "OK"; what is left is that it reaches the network, and by what sockets.
HIGHEST_EXPOSURE = 20


@pytest.fixture
def units(tmp_path, needed):
    """The two units in a directory, started by a program that is there; return what analyses them."""
    analyze = needed("systemd-analyze")
    for name in ("ai-mux.service", "ai-mux.socket"):
        text = (UNITS / name).read_text()
        (tmp_path / name).write_text(started_here(text))

    def run(*arguments):
        return subprocess.run(
            [analyze, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30
        )

    return run


def started_here(text):
    """Return a unit or a drop-in with a program that is there."""
    return re.sub(r"^ExecStart=/\S+", f"ExecStart={sys.executable} -m ai_mux", text, flags=re.M)


def directives(name):
    """Return each directive of a unit with all of its values."""
    found: dict[str, list[str]] = {}
    for key, value in re.findall(r"^([A-Z]\w+)=(.*)$", (UNITS / name).read_text(), re.M):
        found.setdefault(key, []).append(value)
    return found


def drop_in(tmp_path, unit, text):
    directory = tmp_path / f"{unit}.d"
    directory.mkdir(exist_ok=True)
    (directory / "changed.conf").write_text(started_here(text))


def test_systemd_has_nothing_to_say_against_the_units(units):
    done = units("verify", "./ai-mux.service", "./ai-mux.socket")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_is_exposed_to_2_of_10_at_most(units):
    done = units("security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE}", "./ai-mux.service")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_drop_in_of_the_page_is_understood_and_costs_little(units, tmp_path):
    shown = blocks("ini", document=PAGE)
    assert len(shown) >= 3
    for text in shown:
        if "FileDescriptorName=admin" in text:  # a unit of its own
            (tmp_path / "ai-mux-admin.socket").write_text(text)
            done = units("verify", "./ai-mux.service", "./ai-mux.socket", "./ai-mux-admin.socket")
            assert (done.returncode, done.stderr) == (0, "")
            assert "SocketMode=0600" in text.splitlines()
            continue
        unit = "ai-mux.socket" if "[Socket]" in text else "ai-mux.service"
        drop_in(tmp_path, unit, text)
        done = units("verify", "./ai-mux.service", "./ai-mux.socket")
        assert (done.returncode, done.stderr) == (0, ""), text
        rated = units("security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE}", "./ai-mux.service")
        assert rated.returncode == 0, text
        (tmp_path / f"{unit}.d" / "changed.conf").unlink()


def test_the_page_says_how_the_service_is_rated(units):
    rated = units("security", "--offline=yes", "./ai-mux.service").stdout
    score = re.search(r"exposure level for ai-mux.service: (\S+) ", rated)[1]
    assert f"rates it {score} of 10" in (ROOT / PAGE).read_text()


def test_a_stop_has_time_for_requests_and_a_renewal():
    longest_s = load(None, known_providers=()).shutdown_timeout_s + FINISH_WAIT_S
    assert longest_s < int(*directives("ai-mux.service")["TimeoutStopSec"])


def test_a_mistake_in_the_configuration_is_tried_again_and_never_given_up():
    service = directives("ai-mux.service")
    assert service["Restart"] == ["on-failure"]
    assert service["StartLimitIntervalSec"] == ["0"]
    assert "RestartPreventExitStatus" not in service
    assert int(*service["RestartSec"]) >= 5  # or a mistake would keep a processor busy


def test_a_loop_that_stands_still_is_noticed_within_a_minute():
    service = directives("ai-mux.service")
    assert service["Type"] == ["notify"]
    assert service["WatchdogSec"] == ["60"]


def test_a_crash_leaves_no_core_file_with_tokens():
    assert directives("ai-mux.service")["LimitCORE"] == ["0"]


def test_what_the_service_may_write_is_its_own():
    service = directives("ai-mux.service")
    assert service["StateDirectoryMode"] == ["0700"]
    assert service["ProtectSystem"] == ["strict"]
    assert "ReadWritePaths" not in service
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == [""]


def test_socket_unit_and_service_agree(units):
    socket = directives("ai-mux.socket")
    assert socket["FileDescriptorName"] == ["listen"]
    assert socket["ListenStream"] == ["8080"]  # as `listen` by default
    assert "Accept" not in socket  # one process for all
