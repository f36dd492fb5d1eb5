"""The program as an installed wheel: its command, what lies beside it, and what it needs.

Run by scripts/release/test-wheel with the Python into which the wheel is installed.
"""

import os
import subprocess
import sys
import sysconfig
from importlib.metadata import files, version
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    os.environ.get("AI_MUX_INSTALLED") != "wheel", reason="scripts/release/test-wheel runs these"
)


def run(*command, cwd):
    """Run as somebody would who has nothing but this environment."""
    env = {"PATH": sysconfig.get_path("scripts"), "HOME": str(cwd)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_is_there_and_tells_its_version(tmp_path):
    done = run("ai-mux", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"ai-mux {version('ai-mux')}\n")


def test_the_demo_serves_and_is_answered(tmp_path):
    done = run("ai-mux", "demo", "--once", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_it_comes_from_the_environment_and_from_no_tree(tmp_path):
    program = "import ai_mux, sys; print(ai_mux.__file__); print(*sys.path, sep='\\n')"
    done = run(sys.executable, "-P", "-c", program, cwd=tmp_path)
    module, *path = done.stdout.splitlines()
    assert Path(module).is_relative_to(sysconfig.get_path("purelib"))
    assert not [place for place in path if place.endswith(("src", "tests"))]


def test_every_module_can_be_imported_with_nothing_installed_but_what_it_asks_for(tmp_path):
    program = """
import importlib, pkgutil, ai_mux
for module in pkgutil.walk_packages(ai_mux.__path__, "ai_mux."):
    if module.name != "ai_mux.__main__":
        importlib.import_module(module.name)
        print(module.name)
"""
    done = run(sys.executable, "-P", "-W", "error", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ai_mux.proxy.exchange" in done.stdout.split()


@pytest.mark.parametrize(
    "lies_at",
    [
        "share/man/man1/ai-mux.1",
        "share/bash-completion/completions/ai-mux",
        "share/zsh/site-functions/_ai-mux",
        "share/fish/vendor_completions.d/ai-mux.fish",
    ],
)
def test_the_man_page_and_the_completions_lie_under_the_prefix(lies_at):
    assert (Path(sys.prefix) / lies_at).stat().st_size > 100


def test_licence_prices_and_the_mark_of_types_are_installed():
    installed = {str(file) for file in files("ai-mux")}
    assert {"ai_mux/py.typed", "ai_mux/usage/prices.toml"} <= installed
    assert any(file.endswith("licenses/LICENSE") for file in installed)
