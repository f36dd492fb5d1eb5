"""docs/how-to/systemd.md followed under systemd itself, which is the first process of a machine of its own.

The unit's whole sandbox holds then: what ai-mux does, it does in there.
"""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from documents import ROOT
from how_to.pages import missing, steps

PAGE = "docs/how-to/systemd.md"
ME = "tests/packaging/test_systemd_machine.py"
LIMIT_S = 20
# Where control groups of version 2 are: alone, or beside those of version 1.
GROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))

Machine = Callable[..., str]


@pytest.fixture(scope="module")
def machine(
    needed: Callable[[str], str],
    not_allowed: Callable[[str], NoReturn],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Machine]:
    """Boot a machine; return what runs a script there, as root, and returns what it printed."""
    for program in ("systemd-analyze", "unshare", "nsenter", "openssl", "curl", "useradd"):
        needed(program)
    groups = next((one for one in GROUPS if (one / "cgroup.procs").exists()), None)
    if os.geteuid() != 0 or groups is None or not Path("/lib/systemd/systemd").exists():
        not_allowed("to boot a machine takes root, control groups of version 2, and systemd")
    group = groups / f"ai-mux-test-{os.getpid()}"
    directory = tmp_path_factory.mktemp("machine")
    try:
        group.mkdir()
    except OSError as exc:
        not_allowed(f"no machine can be booted here: {exc}")
    script = ROOT / "tests" / "packaging" / "systemd_machine.sh"
    site, python = sysconfig.get_path("purelib"), Path(sys.executable).resolve()
    log = directory.with_name("machine.log")
    with log.open("wb") as out:
        # The shell joins the group before there are namespaces, so that the group is the machine's root.
        booted = subprocess.Popen(
            ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', group,
             "unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup",
             script, directory, ROOT, site, python],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip

    def run(script: str, *, check: bool = True) -> str:
        first = Path(f"/proc/{booted.pid}/task/{booted.pid}/children").read_text().split()
        if not first:
            return ""
        done = subprocess.run(
            ["nsenter", "-t", *first, "-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w",
             "env", "-i", "HOME=/root", "TERM=dumb", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER=",
             "PATH=/opt/ai-mux/bin:/usr/sbin:/usr/bin:/sbin:/bin", "bash", "-c", script],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        printed = done.stdout + done.stderr
        assert not check or done.returncode == 0, printed + run(
            "journalctl -o cat --no-pager -n 30", check=False
        )
        return printed

    try:
        until = time.monotonic() + LIMIT_S
        while run("systemctl is-active multi-user.target", check=False).strip() != "active":
            if booted.poll() is not None or time.monotonic() > until:
                not_allowed(f"no machine can be booted here: {log.read_text().strip()}")
        yield run
    finally:
        booted.kill()  # and with it the first process, and so all of them
        booted.wait()
        _remove(group)


def _remove(group: Path) -> None:
    until = time.monotonic() + LIMIT_S
    while group.exists() and time.monotonic() < until:  # a process that was killed is gone a little later
        inside = sorted((one for one in group.rglob("*") if one.is_dir()), reverse=True)
        for one in (*inside, group):
            subprocess.run(["rmdir", one], capture_output=True, check=False)


def shown(machine: Machine, *names: str) -> dict[str, str]:
    """Return properties of the service, by their names."""
    lines = machine(f"systemctl show -p {','.join(names)} ai-mux.service").splitlines()
    return dict(line.split("=", 1) for line in lines)


def journal(machine: Machine) -> str:
    """Return what the service and systemd said of it since the boot."""
    return machine("journalctl -u ai-mux.service -o cat --no-pager")


def wait_for(machine: Machine, condition: str) -> None:
    """Wait until a script succeeds in the machine."""
    machine(
        f"for i in $(seq 300); do if {condition}; then exit 0; fi; sleep 0.05; done; "
        "systemctl status -n 30 ai-mux; exit 1"
    )


HEALTHY = "curl -s -m 1 -o /dev/null http://127.0.0.1:8080/healthz"


def test_the_page_is_followed_step_by_step(machine):
    followed = [step for step in steps(PAGE) if step.marks.get("run by") == ME]
    assert len(followed) >= 5
    for step in followed:
        printed = machine(f"set -e\n{step.body}")
        deadline = time.monotonic() + LIMIT_S
        # The journal is a moment behind.
        while (line := missing(step.shows, printed)) and time.monotonic() < deadline:
            printed = machine(step.body.splitlines()[-1])
        assert line is None, f"{PAGE}:{step.line}: {line}\n{printed}"
    assert shown(machine, "ActiveState", "NRestarts") == {"ActiveState": "active", "NRestarts": "0"}


def test_it_serves_and_keeps_what_it_must_from_within_its_sandbox(machine):
    told = machine(
        "curl -s -i http://127.0.0.1:8080/healthz; "
        "curl -s -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8080/claude/v1/models; "
        "stat -c '%n %U %a' /var/lib/ai-mux /var/lib/ai-mux/usage.sqlite; "
        "grep -E 'Seccomp:|NoNewPrivs|CapEff|CapBnd' /proc/$(systemctl show -P MainPID ai-mux)/status"
    )
    wanted = (
        "HTTP/1.1 200 OK", "ok", "401",
        "/var/lib/ai-mux ai-mux 700", "/var/lib/ai-mux/usage.sqlite ai-mux 600",
        "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
    )  # fmt: skip
    assert missing(wanted, told) is None, told
    assert "directory." not in journal(machine)


def test_who_connects_during_a_restart_waits_and_is_served(machine):
    ask = "curl -s -m 20 -o /dev/null -w '%{http_code}\\n' http://127.0.0.1:8080/healthz || echo refused"
    # Not before the old process has gone: what it has accepted and not yet read, it closes.
    restart = "old=$(systemctl show -P MainPID ai-mux); systemctl restart ai-mux & while [ -d /proc/$old ]"
    told = machine(f"{restart}; do :; done; for i in $(seq 12); do {ask}; done; wait")
    assert told.split() == ["200"] * 12


def test_a_process_that_stands_still_is_started_again_by_the_watchdog(machine):
    machine(
        "mkdir -p /run/systemd/system/ai-mux.service.d && cd /run/systemd/system/ai-mux.service.d && "
        "printf '[Service]\\nWatchdogSec=1\\nRestartSec=0.1\\n' >quick.conf && "
        "systemctl daemon-reload && systemctl restart ai-mux"
    )
    machine("kill -STOP $(systemctl show -P MainPID ai-mux)")
    wait_for(machine, f'[ "$(systemctl show -P NRestarts ai-mux)" = 1 ] && {HEALTHY}')
    assert "Watchdog timeout" in journal(machine)


def test_a_mistake_is_tried_again_until_it_is_mended(machine):
    machine("cd /etc/ai-mux/tokens && mv alice away && (systemctl restart ai-mux || true)")
    wait_for(machine, '[ "$(systemctl show -P NRestarts ai-mux)" -ge 2 ]')
    assert "users[0].token_file: cannot be read" in journal(machine)
    machine("cd /etc/ai-mux/tokens && mv away alice")
    wait_for(machine, f"systemctl is-active -q ai-mux && {HEALTHY}")


def test_a_credential_is_read_where_the_unit_loads_it_and_else_the_unit_s_line_is_told(machine):
    machine(
        "cd /etc/ai-mux && cp -p config.yaml kept && chmod 600 tokens/alice && "
        "sed -i 's#/etc/ai-mux/tokens/#/run/credentials/ai-mux.service/#' config.yaml && "
        "(systemctl restart ai-mux || true)"
    )
    wait_for(machine, "journalctl -u ai-mux -o cat --no-pager | grep -q LoadCredential=alice:")
    machine(
        "cd /run/systemd/system/ai-mux.service.d && "
        "printf '[Service]\\nLoadCredential=alice:/etc/ai-mux/tokens/alice\\n' >credential.conf && "
        "systemctl daemon-reload && systemctl restart ai-mux"
    )
    token = "Authorization: Bearer $(cat /etc/ai-mux/tokens/alice)"
    ask = f'curl -s -o /dev/null -w "%{{http_code}}" http://127.0.0.1:8080/usage -H "{token}"'
    assert machine(ask) == "200"
    machine("cd /etc/ai-mux && mv kept config.yaml && chmod 640 tokens/alice && systemctl restart ai-mux")


def test_a_state_dir_that_the_unit_does_not_name_is_told_with_what_names_it(machine):
    machine("mkdir -p /srv/ai-mux && chown ai-mux /srv/ai-mux")
    machine("sed -i 's#/var/lib/ai-mux#/srv/ai-mux#' /etc/ai-mux/config.yaml && systemctl restart ai-mux")
    wait_for(machine, "journalctl -u ai-mux -o cat --no-pager | grep -q directory.unusable")
    (line,) = [one for one in journal(machine).splitlines() if "directory.unusable" in one]
    assert "/srv/ai-mux is read-only" in line
    assert "StateDirectory=" in line


def test_a_stop_is_clean(machine):
    machine("systemctl stop ai-mux.socket ai-mux.service")
    assert shown(machine, "Result", "ExecMainStatus") == {"Result": "success", "ExecMainStatus": "0"}


def test_where_no_machine_can_be_booted_it_is_said_aloud_and_is_no_failure(tmp_path, needed):
    needed("systemd-analyze")
    (tmp_path / "unshare").write_text("#!/bin/sh\necho unshare: made-up reason >&2\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    required = {"AI_MUX_PACKAGING": "required", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", ME, "-q", "-p", "no:cacheprovider", "-k", "a_stop_is_clean"],
        cwd=ROOT, env=os.environ | required,
        capture_output=True, text=True, check=False, timeout=3 * LIMIT_S,
    )  # fmt: skip
    told = [line for line in done.stdout.splitlines() if line.startswith("PACKAGING TESTS NOT RUN: ")]
    assert (done.returncode, len(told)) == (0, 1), done.stdout
    assert "made-up reason" in told[0] or "to boot a machine takes" in told[0]
