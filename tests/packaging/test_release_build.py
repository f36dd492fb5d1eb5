"""A release that fails halfway: nothing of it stays, and the one before is whole. The tools are made up."""

import os
import shutil
import signal
import subprocess
import time

import pytest
from release_scripts import SCRIPTS


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a release, in which the step that packs is a program of the test's."""
    checkout = tmp_path / "checkout"
    (checkout / "scripts" / "release").mkdir(parents=True)
    shutil.copy(SCRIPTS / "build", checkout / "scripts" / "release")
    (checkout / "scripts" / "environment.sh").write_text(
        'make_environment() { :; }\nsay() { echo "$*" >&2; }\ninstall() { :; }\n'
    )
    (checkout / "dist").mkdir()
    (checkout / "dist" / "before.whl").touch()
    return checkout


def building(checkout, packing, *arguments):
    """Start to build; ``packing`` is the shell's, with the directory as its second argument."""
    python = checkout / ".venv" / "wheel" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\ntouch "$2/half.whl"\n{packing}\n')
    python.chmod(0o755)
    return subprocess.Popen(
        [checkout / "scripts" / "release" / "build", *arguments], cwd=checkout, start_new_session=True
    )


def left(checkout):
    return sorted(str(path.relative_to(checkout)) for path in checkout.glob("dist*/*"))


def test_of_a_step_that_fails_nothing_stays_and_the_release_before_does(checkout):
    assert building(checkout, "exit 3").wait(timeout=60) == 3
    assert left(checkout) == ["dist/before.whl"]
    assert not [*checkout.glob("dist.*")]


@pytest.mark.parametrize("why", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nor_of_one_that_was_stopped(checkout, why):
    builds = building(checkout, "exec sleep 60")
    deadline = time.monotonic() + 30
    while not [*checkout.glob("dist.*/half.whl")]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # As a terminal does: to all that run in front.
    os.killpg(builds.pid, why)
    assert builds.wait(timeout=60) == 128 + why
    assert left(checkout) == ["dist/before.whl"]
    assert not [*checkout.glob("dist.*")]


def test_what_lies_beside_a_target_of_ones_own_is_left_alone_however_it_is_written(checkout):
    (checkout / "mine.new").mkdir()
    (checkout / "mine.new" / "theirs").touch()
    assert (
        building(checkout, 'echo "$2" > "$(dirname "$2")/packed-in"; exit 3', "mine/").wait(timeout=60) == 3
    )
    assert [path.name for path in checkout.glob("mine*")] == ["mine.new"]
    assert (checkout / "mine.new" / "theirs").exists()
    packed_in = (checkout / "packed-in").read_text().strip()
    assert packed_in.startswith(f"{checkout}/mine.") and packed_in != f"{checkout}/mine.new"
