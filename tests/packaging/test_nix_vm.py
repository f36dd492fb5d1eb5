"""nix/vm-test.nix, as far as it goes without a virtual machine: its script drives real servers.

The machines' systems are evaluated, and what they would start runs as a process here. Only
systemd and its log have stand-ins, which do to the process what is asked of them.
"""

import asyncio
import contextlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from documents import ROOT
from how_to.programs import answers, free_port, started
from nix_evaluation import Nix

LIMIT_S = 20
# What a machine's systemd and journal do, for one process and its log.
SYSTEMCTL = """#!/bin/sh
case "$1" in
    show) echo "$SERVER_PID" ;;
    reload) kill -HUP "$SERVER_PID" ;;
    stop) kill -TERM "$SERVER_PID" ;;
    *) exit 1 ;;
esac
"""
JOURNALCTL = '#!/bin/sh\nexec cat "$SERVER_LOG"\n'
# Whose the directory is depends on who runs the test.
STAT = '#!/bin/sh\nshift 2\nprintf "ai-mux "\nexec "$REAL_STAT" -c %a "$STATE_DIR"\n'


class Machine:
    """A machine's driver, as far as the script uses it: its commands run here."""

    def __init__(self, environment, ports):
        self._environment = environment
        self._ports = ports

    def _here(self, command):
        # The script's port, which several tests at once cannot have.
        for there, here in self._ports.items():
            command = re.sub(rf"localhost:{there}\b", f"127.0.0.1:{here}", command)
        return command

    def _run(self, command):
        return subprocess.run(
            ["bash", "-c", self._here(command)], env=self._environment, capture_output=True, text=True,
            check=False, timeout=LIMIT_S,
        )  # fmt: skip

    def succeed(self, command):
        done = self._run(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def _until(self, holds, what):
        deadline = time.monotonic() + LIMIT_S
        while not holds():
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def wait_until_succeeds(self, command):
        self._until(lambda: self._run(command).returncode == 0, command)

    def wait_until_fails(self, command):
        self._until(lambda: self._run(command).returncode != 0, command)

    def wait_for_unit(self, unit):
        assert unit == "ai-mux.service"

    def wait_for_open_port(self, port):
        self._until(lambda: answers(self._ports[port]), f"port {port}")


@pytest.fixture
def nodes(needed, tmp_path):
    nix = Nix(program=needed("nix-instantiate"), directory=tmp_path / "nix")
    (tmp_path / "nix").mkdir()
    needed("curl")
    return nix.evaluate(
        f"""
        let
          test = import {ROOT}/nix/vm-test.nix;
          writeText = _: text: {{ inherit text; }};
          given = {{ pkgs = pkgs // {{ inherit writeText; }}; }};
          module = node: if builtins.isFunction node then node given else node;
        in
        {{
          inherit (test) name testScript;
          machines = lib.mapAttrs (_: node: nixos (module node)) test.nodes;
        }}
        """
    )


def test_the_machines_systems_are_sound(nodes):
    assert {name: machine["failed"] for name, machine in nodes["machines"].items()} == {
        "plain": [],
        "guarded": [],
    }
    assert nodes["machines"]["plain"]["ports"] == [8080]
    # One has its token in the store, for everyone to see; the other shows how it is done.
    assert [len(nodes["machines"][name]["warnings"]) for name in ("plain", "guarded")] == [1, 0]


async def test_the_script_holds_for_servers_with_the_machines_configurations(nodes, tmp_path):
    machines = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, system in nodes["machines"].items():
            machines[name] = await _machine(system, tmp_path / name, stack)
        scope = machines | {"start_all": lambda: None, "subtest": lambda _: contextlib.nullcontext()}
        script = inspect.cleandoc(nodes["testScript"])
        await asyncio.to_thread(exec, compile(script, "testScript", "exec"), scope)


async def _machine(system, directory, stack):
    """Run what a machine's unit would, in a directory."""
    state = directory / "state"
    state.mkdir(mode=0o700, parents=True)
    document = json.loads(system["etc"]["ai-mux/config.json"]["source"])
    there = int(document["listen"].rpartition(":")[2])
    here = free_port()
    document |= {"listen": f"127.0.0.1:{here}", "state_dir": str(state)}
    text = json.dumps(document)
    # What LoadCredential= does.
    for one in system["unit"]["serviceConfig"]["LoadCredential"]:
        name, _, file = one.partition(":")
        (directory / name).touch(0o400)
        (directory / name).write_text(system["etc"][file.removeprefix("/etc/")]["source"])
        text = text.replace(f"/run/credentials/ai-mux.service/{name}", str(directory / name))
    config = directory / "config.json"
    config.touch(0o600)
    config.write_text(text)
    commands = directory / "bin"
    commands.mkdir()
    for name, script in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL), ("stat", STAT)):
        (commands / name).write_text(script)
        (commands / name).chmod(0o755)
    log = directory / "log"
    environment = {"HOME": str(directory), "PATH": f"{commands}:{os.environ['PATH']}"}
    server = await stack.enter_async_context(
        started(
            [sys.executable, "-m", "ai_mux", "--config", config],
            cwd=directory,
            environment=environment,
            log=log,
            is_ready=lambda: answers(here),
        )
    )
    environment |= {
        "SERVER_PID": str(server.pid),
        "SERVER_LOG": str(log),
        "STATE_DIR": str(state),
        "REAL_STAT": shutil.which("stat") or "stat",
    }
    return Machine(environment, {there: here})
