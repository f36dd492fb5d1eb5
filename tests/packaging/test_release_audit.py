"""The look for vulnerabilities: a finding fails, nobody to ask does not, and the two are told apart."""

import json
import os
import subprocess

import pytest
from release_scripts import RELEASE_PYTHON, SCRIPTS, Answer, script, serving

audit = script("audit")
LOCK = "click==8.1.7 \\\n    --hash=sha256:" + "0" * 64 + "\n"
# As OSV's API answers for a package: https://google.github.io/osv.dev/post-v1-query/
FINDING = {
    "id": "PYSEC-2999-1",
    "summary": "Made up.",
    "details": "Made up.",
    "affected": [
        {
            "package": {"name": "click", "ecosystem": "PyPI", "purl": "pkg:pypi/click"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "8.1.9"}]}],
            "versions": ["8.1.7"],
        }
    ],
}


@pytest.fixture
def service():
    """A service of vulnerabilities on loopback, with the answer and status that a test gives it."""

    class Answers(Answer):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(json.dumps(self.server.answer).encode(), status=self.server.status)

    with serving(Answers) as server:
        server.answer, server.status = {}, 200
        yield server


@pytest.fixture
def run(needed, tmp_path):
    """Return a function that audits a lock; nothing but loopback can be reached."""
    python = needed(str(RELEASE_PYTHON))
    (tmp_path / "some.lock").write_text(LOCK)

    def ran(*options, lock="some.lock"):
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
        env |= {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
        command = [python, SCRIPTS / "audit.py", lock, "--", *options]
        done = subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout

    return ran


def asking(service):
    port = service.server_address[1]
    return "--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{port}/v1/query"


def test_a_known_vulnerability_fails_and_says_what_mends_it(run, service):
    service.answer = {"vulns": [FINDING]}
    code, said = run(*asking(service))
    assert code == 1
    assert "VULNERABLE: click 8.1.7: PYSEC-2999-1, mended by 8.1.9" in said


def test_none_known_passes(run, service):
    code, said = run(*asking(service))
    assert (code, said) == (0, "some.lock: 1 packages checked, 0 known vulnerabilities\n")


def test_without_a_network_it_says_not_checked_and_passes(run):
    code, said = run()
    assert code == 0
    assert said == "some.lock: NOT CHECKED: nobody could be asked (requests.exceptions.ProxyError)\n"


def test_a_service_in_trouble_is_not_a_finding_either(run, service):
    service.status = 503
    code, said = run(*asking(service))
    assert code == 0
    assert "NOT CHECKED" in said
    assert "0 known" not in said


@pytest.mark.parametrize("lock", ["missing.lock", "broken.lock"])
def test_whatever_else_goes_wrong_fails(run, service, tmp_path, lock):
    (tmp_path / "broken.lock").write_text("click>=8\n")
    code, said = run(*asking(service), lock=lock)
    assert code == 1
    assert "pip-audit ended with" in said


def test_a_package_that_the_service_does_not_know_is_not_called_checked():
    found = audit.judged({"dependencies": [{"name": "click", "skip_reason": "not found"}]})
    assert (found.checked, found.unchecked, found.vulnerable) == (0, ["click"], [])
