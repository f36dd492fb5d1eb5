"""The Dockerfile, carried out step by step, and containers of what it comes to.

Without an engine (``containers.engine``, ``containers.running``), but with namespaces of the
kernel's, as an engine has.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tomllib
from pathlib import Path

import pytest
from containers.context import send
from containers.dockerfile import read
from containers.engine import Failed, build
from containers.python import prefix
from containers.running import running
from documents import ROOT
from ruamel.yaml import YAML

DOCKERFILE = (ROOT / "Dockerfile").read_text()
PLANTED = "made-up-secret-of-a-checkout"
TOKEN = "made-up-token-of-a-container"
REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGEST_BYTES = 120 * 2**20
USERS = f"users:\n  - name: alice\n    token: {TOKEN}\n"
LOGIN = {"tokens": {"access_token": "made-up", "refresh_token": "", "account_id": "a"}}

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 and os.environ.get("AI_MUX_PACKAGING") != "required", reason="only root can mount"
)


def _checkout(into):
    """Copy what matters here of this checkout, with what an operator's own may hold besides."""
    into.mkdir()
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy2(file, into / file.name)
    for name in ("src", "packaging", "docs", "scripts"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".env", "config.yaml", "container/secrets/alice", "container/state/chatgpt/auth.json"):
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).write_text(PLANTED)
    return into


def _context(checkout, into):
    names = [str(path.relative_to(checkout)) for path in checkout.rglob("*")]
    into.mkdir()
    send(checkout, names, into)
    return into


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return prefix(read(DOCKERFILE)[-1].base)


@pytest.fixture(scope="module")
def image(tmp_path_factory, python, needed):
    for program in ("unshare", "nsenter", "setpriv", "mount", "chroot"):
        needed(program)
    directory = tmp_path_factory.mktemp("image")
    context = _context(_checkout(directory / "checkout"), directory / "context")
    return build(DOCKERFILE, context, directory / "built", python=python, arguments={"REVISION": REVISION})


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


class Place:
    """The directories that are mounted, as docs/how-to/containers.md makes them."""

    def __init__(self, directory, uid=10001):
        self.config, self.secrets, self.state = (directory / name for name in ("config", "secrets", "state"))
        for one in (self.config, self.secrets, self.state):
            one.mkdir(mode=0o700)
        self.log = directory / "log"
        self.belong_to(uid)

    @property
    def mounts(self):
        return {
            "/etc/ai-mux": (self.config, False),
            "/run/secrets": (self.secrets, False),
            "/var/lib/ai-mux": (self.state, True),
        }

    def configure(self, text=USERS, listen=":8080"):
        file = self.config / "config.yaml"
        new = file.with_suffix(".new")
        new.write_text(
            f'listen: "{listen}"\nstate_dir: /var/lib/ai-mux\nproviders: [claude, chatgpt]\n{text}'
        )
        new.chmod(0o600)
        os.chown(new, self.uid, self.uid)
        new.replace(file)

    def belong_to(self, uid):
        self.uid = uid
        for one in (self.config, self.secrets, self.state):
            os.chown(one, uid, uid)


def _events(container):
    return [json.loads(line) for line in container.said.splitlines()]


def _get(container, path, token, port=8080):
    """Return the status of a request from within."""
    program = (
        "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[3]), timeout=5); "
        "c.request('GET', sys.argv[1], headers={'x-api-key': sys.argv[2]} if sys.argv[2] else {}); "
        "print(c.getresponse().status)"
    )
    done = container.execute(["python", "-c", program, path, token, str(port)])
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def _files(directory):
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in directory.rglob("*")
        if not path.is_dir()
    }


# What it does


def test_a_container_serves_and_ends_with_no_right_and_nothing_else_to_write_to(image, place):
    place.configure()
    before = _files(image.directory)
    with running(image, mounts=place.mounts, log=place.log) as container:
        container.until('"listening"')
        assert container.is_healthy() == (True, "http://127.0.0.1:8080: 200 ok\n")
        assert (_get(container, "/claude/v1/models", "no-token-of-anyone"), 401) == (401, 401)
        assert _get(container, "/claude/v1/models", TOKEN) == 503  # there is no login
        status = Path(f"/proc/{container.pid}/status").read_text()
        assert re.findall(r"(?:Uid|CapEff|CapBnd|NoNewPrivs):\t(\S+)", status) == [
            "10001",
            *["0" * 16] * 2,
            "1",
        ]
        for path in ("/x", "/tmp/x", "/opt/ai-mux/x", "/etc/ai-mux/x", "/run/secrets/x"):
            assert b"Read-only" in container.execute(["touch", path]).stderr, path
        assert container.stop() == 0
        events = _events(container)
    assert events[-1]["event"] == "stopped"
    assert {one["event"] for one in events if one["level"] == "error"} == {"credential.missing"}
    assert _files(image.directory) == before
    assert {path.name.split(".")[0] for path in place.state.iterdir()} == {"chatgpt", "claude", "usage"}


def test_it_can_run_as_anybody_to_whom_the_directories_belong(image, place):
    place.belong_to(54321)
    place.configure()
    with running(image, mounts=place.mounts, log=place.log, user="54321:54321") as container:
        container.until('"listening"')
        assert container.is_healthy()[0]
        assert container.stop() == 0
    assert {path.stat().st_uid for path in place.state.iterdir()} == {54321}


def test_a_login_is_moved_in_as_the_pages_say_and_used_at_once(image, place):
    """The volume is as Kubernetes makes it: root's, open to the group ``fsGroup``."""
    os.chown(place.state, 0, 10001)
    place.state.chmod(0o2775)
    moving = re.compile(r"umask 077 && mkdir -p chatgpt && cat > \S+ && mv \S+ chatgpt/auth\.json")
    (command,) = {
        found
        for page in ("containers", "kubernetes")
        for found in moving.findall((ROOT / f"docs/how-to/{page}.md").read_text())
    }
    place.configure()
    with running(image, mounts=place.mounts, log=place.log) as container:
        container.until('"listening"')
        done = container.execute(["sh", "-c", command], stdin=json.dumps(LOGIN).encode())
        assert (done.returncode, done.stderr) == (0, b"")
        container.until('"credential.read"')
        assert container.stop() == 0
    (login,) = place.state.glob("chatgpt/*.json")
    assert (login.stat().st_uid, login.stat().st_mode & 0o777) == (10001, 0o600)


@pytest.mark.parametrize("init", [True, False])
def test_a_changed_configuration_is_read_on_sighup(image, place, init):
    place.configure()
    with running(image, mounts=place.mounts, log=place.log, init=init) as container:
        container.until('"listening"')
        place.configure(USERS.replace(TOKEN, "another-made-up-token"))
        container.signal(signal.SIGHUP)
        container.until('"config.reloaded"')
        assert _get(container, "/claude/v1/models", TOKEN) == 401
        assert container.stop() == 0


@pytest.mark.parametrize("init", [True, False])
def test_nothing_of_a_container_outlives_its_test(image, place, init):
    place.configure()
    with running(image, mounts=place.mounts, log=place.log, init=init) as container:
        container.until('"listening"')
        first = container.pid
    assert not Path(f"/proc/{first}").exists()


@pytest.mark.parametrize("after_ms", [0, 40, 100, 200, 350])
def test_a_stop_counts_from_the_first_moment_on_with_an_init_as_compose_asks_for(image, place, after_ms):
    place.configure()
    with running(image, mounts=place.mounts, log=place.log, init=True) as container:
        container.until_entered()
        subprocess.run(["sleep", str(after_ms / 1000)], check=True)  # the moment is what is tried
        assert container.stop(within_s=10) in {0, 128 + signal.SIGTERM}


@pytest.mark.parametrize("after_ms", [0, 20, 50, 100, 150, 200, 300])
def test_without_an_init_it_counts_as_soon_as_there_is_a_python(image, place, after_ms):
    """Before, the kernel passes over it: test_containers_first_process.py has places instead of moments."""
    place.configure()
    with running(image, mounts=place.mounts, log=place.log) as container:
        container.until_entered()
        container.until_it_catches(signal.SIGTERM)
        subprocess.run(["sleep", str(after_ms / 1000)], check=True)
        assert container.stop(within_s=10) in {0, 128 + signal.SIGTERM}


def test_the_entry_point_is_the_one_that_can_be_stopped_while_it_starts(image, place):
    pipe = place.config / "config.yaml"
    os.mkfifo(pipe, 0o600)
    os.chown(pipe, place.uid, place.uid)
    with running(image, mounts=place.mounts, log=place.log) as container:
        container.until_it_catches(signal.SIGTERM)
        assert container.stop(within_s=10) == 128 + signal.SIGTERM


# What Kubernetes asks


def test_every_probe_asks_for_what_the_server_answers(image, place):
    """With the manifests' own configuration, ports and mounts."""
    directory = ROOT / "packaging" / "kubernetes"
    deployment, config = (
        YAML(typ="safe").load(directory / name) for name in ("deployment.yaml", "config.yaml")
    )
    (spec,) = deployment["spec"]["template"]["spec"]["containers"]
    outside = {
        "config": (place.config, False),
        "secrets": (place.secrets, False),
        "state": (place.state, True),
    }
    mounts = {one["mountPath"]: outside[one["name"]] for one in spec["volumeMounts"]}
    for into, name, text in [
        (place.config, "config.yaml", config["data"]["config.yaml"]),
        *((place.secrets, name, f"made-up-secret-of-{name}") for name in ("alice", "admin", "anthropic")),
    ]:
        (into / name).write_text(text)
        (into / name).chmod(0o440)
        os.chown(into / name, 0, place.uid)
    ports = {one["name"]: one["containerPort"] for one in spec["ports"]}
    with running(image, mounts=mounts, log=place.log) as container:
        container.until('"listening"')
        probes = {name: one["httpGet"] for name, one in spec.items() if name.endswith("Probe")}
        assert {name.removesuffix("Probe") for name in probes} == {"startup", "readiness", "liveness"}
        for name, asked in probes.items():
            assert _get(container, asked["path"], "", ports[asked["port"]]) == 200, name
        assert container.stop() == 0


# The health check


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("[::1]:9000", "http://::1:9000"),
        ("0.0.0.0:9000", "http://127.0.0.1:9000"),
        ("unix:/var/lib/ai-mux/ai-mux.sock", "unix:/var/lib/ai-mux/ai-mux.sock"),
    ],
)
def test_the_health_check_asks_where_the_configuration_says(image, place, listen, asked):
    place.configure(listen=listen)
    with running(image, mounts=place.mounts, log=place.log, init=True) as container:
        container.until('"listening"')
        assert container.is_healthy() == (True, f"{asked}: 200 ok\n")


def test_the_health_check_speaks_tls_and_finds_a_configuration_of_another_name(image, place, needed):
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ai-mux.example"
    pair = ["-keyout", place.secrets / "key", "-out", place.secrets / "cert"]
    subprocess.run([needed("openssl"), *made.split(), *pair], check=True, capture_output=True)
    place.configure(
        f"{USERS}tls: {{enabled: true, cert_path: /run/secrets/cert, key_path: /run/secrets/key}}\n",
        listen=":8443",
    )
    (place.config / "config.yaml").rename(place.config / "other.yaml")
    os.chown(place.secrets / "key", 10001, 10001)
    command = ["--config=/etc/ai-mux/other.yaml"]
    with running(image, mounts=place.mounts, log=place.log, command=command) as container:
        container.until('"listening"')
        assert container.is_healthy() == (True, "https://127.0.0.1:8443: 200 ok\n")


def test_a_configuration_that_breaks_later_makes_no_server_unwell(image, place):
    place.configure()
    with running(image, mounts=place.mounts, log=place.log) as container:
        container.until('"listening"')
        place.configure("no_such_setting: 1\n")
        assert container.is_healthy()[0]


def test_the_health_check_says_what_it_asked_when_nobody_answers(image, place):
    place.configure()
    with running(image, mounts=place.mounts, log=place.log) as container:
        container.until('"listening"')
        place.configure(listen="127.0.0.1:9")
        healthy, said = container.is_healthy()
        assert (healthy, said.startswith("http://127.0.0.1:9: ConnectionRefusedError")) == (False, True), said


# What is in it


def _distributions(image):
    (site,) = image.within("/opt/ai-mux/lib").glob("python3.*/site-packages")
    names = (one.name.removesuffix(".dist-info").rpartition("-")[0] for one in site.glob("*.dist-info"))
    return site, {re.sub(r"[-_.]+", "-", name.lower()) for name in names}


def test_it_holds_what_ai_mux_needs_to_run_and_no_more(image):
    site, installed = _distributions(image)
    program = (
        "import importlib.metadata as m, re, sys\n"
        "from pip._vendor.packaging.requirements import Requirement\n"
        "found, left = set(), ['ai-mux']\n"
        "while left:\n"
        "    name = re.sub(r'[-_.]+', '-', left.pop().lower())\n"
        "    if name in found: continue\n"
        "    found.add(name)\n"
        "    for text in next(m.distributions(name=name, path=[sys.argv[1]])).requires or []:\n"
        "        one = Requirement(text)\n"
        "        if one.marker is None or one.marker.evaluate({'extra': ''}): left.append(one.name)\n"
        "print(*found)\n"
    )
    python = image.python / "bin" / "python3"
    done = subprocess.run(
        [python, "-c", program, site], check=True, capture_output=True, text=True, timeout=60
    )
    assert installed == set(done.stdout.split())


def test_it_is_small(image):
    sizes = {
        path.lstat().st_ino: path.lstat().st_size
        for directory in (image.root, image.directory / "local")
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert sum(sizes.values()) < LARGEST_BYTES


def test_every_module_comes_with_byte_code_that_asks_for_no_source(image):
    site, _ = _distributions(image)
    stdlib = image.within("/usr/local/lib").glob("python3.*/asyncio/__pycache__/runners.*.pyc")
    code = [*site.glob("ai_mux/**/*.pyc"), *stdlib]
    assert {path.name.partition(".")[0] for path in code} >= {"cli", "app", "exchange", "runners"}
    assert len(code) == len([*site.glob("ai_mux/**/*.py"), "runners"])
    # PEP 552: the lowest bit says that it goes by a hash, the next that the source is looked at.
    assert {int.from_bytes(path.read_bytes()[4:8], "little") for path in code} == {1}


def test_nothing_of_a_checkouts_own_is_in_any_stage(image):
    for stage in image.directory.parent.iterdir():
        for path in stage.rglob("*"):
            if path.is_file() and not path.is_symlink():
                assert PLANTED.encode() not in path.read_bytes(), path


def test_the_labels_say_which_version_of_what(image):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = {name.rpartition(".")[2]: value for name, value in image.labels.items()}
    assert labels == {
        "title": project["name"],
        "description": labels["description"],
        "version": project["version"],
        "revision": REVISION,
        "licenses": project["license"],
    }
    assert project["description"].startswith(labels["description"])


def test_a_package_with_another_hash_is_not_installed(tmp_path, python, needed):
    context = _context(_checkout(tmp_path / "checkout"), tmp_path / "context")
    lock = context / "requirements.lock"
    wrong = lock.read_text().partition("aiohttp==")[0]
    lock.write_text(re.sub(r"sha256:\w{8}", "sha256:00000000", wrong))
    with pytest.raises(Failed, match="DO NOT MATCH THE HASHES"):
        build(DOCKERFILE, context, tmp_path / "built", python=python, arguments={})
