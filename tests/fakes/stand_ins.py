"""A machine with stand-ins for the vendors' clients, on which ``ai-mux login`` runs as a process."""

import json
import shlex
import subprocess
import sys
import time

from fakes.machine import names
from fakes.terminal import Terminal

LATER_MS = int((time.time() + 8 * 3600) * 1000)
NEW = {"claudeAiOauth": {"accessToken": "new-access", "refreshToken": "new-refresh", "expiresAt": LATER_MS}}
CODEX_NEW = {"auth_mode": "chatgpt", "tokens": {"access_token": "new-access", "refresh_token": "new-refresh"}}

# What every stand-in does first: tell how it was called. Then what a test wants of it.
RECORD = 'printf "%s\\n" "$@" > "$RECORDS/argv"; env > "$RECORDS/env"; umask > "$RECORDS/umask"\n'
WRITES_CLAUDE = f'printf %s {shlex.quote(json.dumps(NEW))} > "$CLAUDE_CONFIG_DIR/.credentials.json"\n'
WRITES_CODEX = f'printf %s {shlex.quote(json.dumps(CODEX_NEW))} > "$CODEX_HOME/auth.json"\n'


class StandIns:
    """A home, a PATH with stand-ins, and a configuration."""

    def __init__(self, directory):
        self.home = directory / "home"
        self.bin = directory / "bin"
        self.records = directory / "records"
        self.state = directory / "state"
        self.config = directory / "config.json"
        for made in (self.home, self.bin, self.records):
            made.mkdir()
        self.env = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.home), "RECORDS": str(self.records)}
        self.configure("claude", "chatgpt")

    def configure(self, *providers):
        users = [{"name": "alice", "token": "made-up-user-token-of-alice"}]
        settings = {"state_dir": str(self.state), "providers": list(providers), "users": users}
        self.config.touch(0o600)
        self.config.write_text(json.dumps(settings))

    def install(self, name, script):
        program = self.bin / name
        program.write_text("#!/bin/sh\n" + RECORD + script)
        program.chmod(0o755)

    def command(self, *arguments):
        return [sys.executable, "-m", "ai_mux", "login", *arguments, "--config", str(self.config)]

    def login(self, *arguments, given="", **more):
        return subprocess.run(
            self.command(*arguments), input=given, env=self.env | more, cwd=self.home, timeout=60,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def terminal(self, *arguments):
        return Terminal(self.command(*arguments), cwd=self.home, env=self.env)

    @property
    def argv(self):
        return (self.records / "argv").read_text().splitlines()

    @property
    def seen(self):
        lines = (self.records / "env").read_text().splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    @property
    def was_run(self):
        return (self.records / "argv").exists()

    @property
    def claude(self):
        return self.state / "claude" / ".credentials.json"


def visible(directory):
    """Return what is in a directory but for the lock, which stays."""
    return [name for name in names(directory) if name != ".ai-mux.lock"]
