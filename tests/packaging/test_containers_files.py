"""The files of containers: read by the tools that judge such files, and held to what ai-mux needs.

Source: the Compose specification, Kubernetes' own schemas, hadolint's rules. None of these
tools asks a network.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from containers.context import sent
from containers.dockerfile import Unreadable, pairs, read
from documents import ROOT
from ruamel.yaml import YAML

from ai_mux.config import load
from ai_mux.credentials.refresh import FINISH_WAIT_S

DOCKERFILE = (ROOT / "Dockerfile").read_text()
KUBERNETES = ROOT / "packaging" / "kubernetes"
MANIFESTS = sorted(set(KUBERNETES.glob("*.yaml")) - {KUBERNETES / "kustomization.yaml"})
# The oldest that is still cared for, and the newest that the validator knows.
VERSIONS = ("1.32", "1.37")
YAML_RULES = """{extends: default, rules: {document-start: disable, line-length: {max: 120},
  braces: {max-spaces-inside: 1}, comments: {min-spaces-from-content: 1}}}"""


def _yaml(path):
    return YAML(typ="safe").load(path)


COMPOSE = _yaml(ROOT / "compose.yaml")["services"]["ai-mux"]


def _judged(*command):
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def _copy(file, old, new, into):
    """Return a copy of a file in which something is wrong."""
    text = file.read_text()
    assert old in text
    (into / file.name).write_text(text.replace(old, new))
    return into / file.name


# What the tools say


def test_hadolint_has_nothing_to_say(needed, tmp_path):
    program = needed("hadolint")
    assert _judged(program, "--no-color", ROOT / "Dockerfile") == (0, "")
    wrong = _copy(ROOT / "Dockerfile", "ARG PYTHON=python:3.13-slim", "ARG PYTHON=python", tmp_path)
    wrong.write_text(wrong.read_text().replace("${PYTHON}", "python"))
    assert "DL3006" in _judged(program, "--no-color", wrong)[1]


@pytest.mark.parametrize("wrong", [None, "cap_dorp", "stop_grace"])
def test_compose_yaml_is_what_the_specification_allows(needed, tmp_path, wrong):
    file = ROOT / "compose.yaml"
    if wrong is not None:
        file = _copy(
            file, {"cap_dorp": "cap_drop", "stop_grace": "stop_grace_period"}[wrong], wrong, tmp_path
        )
    code, said = _judged(needed("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", file)
    assert (code == 0) == (wrong is None), said


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field_of_the_manifests(needed, version):
    code, said = _judged(needed("kubernetes-validate"), "--strict", "-k", version, *MANIFESTS)
    assert code == 0, said
    assert said.count("passed") == len(MANIFESTS)


@pytest.mark.parametrize(
    ("old", "new"),
    [("replicas:", "replica:"), ("90 #", "ninety #"), ("containerPort: 8080", "containerPort: many")],
)
def test_a_manifest_that_is_wrong_is_noticed(needed, tmp_path, old, new):
    wrong = _copy(KUBERNETES / "deployment.yaml", old, new, tmp_path)
    assert _judged(needed("kubernetes-validate"), "--strict", "-k", VERSIONS[1], wrong)[0] != 0


def test_yamllint_has_nothing_to_say(needed):
    files = [ROOT / "compose.yaml", *KUBERNETES.glob("*.yaml")]
    assert _judged(needed("yamllint"), "--strict", "-d", YAML_RULES, *files) == (0, "")


def test_kustomize_puts_all_of_them_together_with_the_image_of_the_operators_registry():
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is missing: Debian has none")
    code, said = _judged(program, "kustomize", KUBERNETES)
    assert code == 0, said
    found = {one["kind"]: one for one in YAML(typ="safe").load_all(said)}
    assert set(found) == {_yaml(file)["kind"] for file in MANIFESTS}
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith("/ai-mux:0.1.0")


# What ai-mux needs


def test_the_image_runs_as_nobody_in_particular_and_starts_without_a_shell():
    stage = read(DOCKERFILE)[-1]
    last = {one.name: one for one in stage.instructions}
    uid, gid = last["USER"].rest.split(":")
    assert int(uid) > 0 < int(gid)
    assert last["ENTRYPOINT"].listed() == ["ai-mux"]
    assert last["CMD"].listed() == ["--config", COMPOSE["volumes"][0]["target"] + "/config.yaml"]
    assert last["STOPSIGNAL"].rest == "SIGTERM"
    assert COMPOSE["user"] == f"${{AI_MUX_USER:-{uid}:{gid}}}"


def test_packages_are_wheels_of_the_lock_or_of_what_the_lock_has_brought():
    installs = [
        word
        for stage in read(DOCKERFILE)
        for one in stage.instructions
        if one.name == "RUN"
        for word in one.rest.split("&&")
        if " install " in word and "pip" in word
    ]
    locked, project = (word.split() for word in installs)
    assert {"--require-hashes", "--only-binary", ":all:", "requirements.lock"} <= {*locked}
    assert {"--no-deps", "--no-build-isolation", "."} <= {*project}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "FROM x\nADD https://example.com/x /x",
            "FROM x\nVOLUME /x",
            "RUN x\nFROM x",
            "FROM x\nLABEL no pair",
        ),
        *("FROM x\nHEALTHCHECK --start-interval=2s CMD []", "FROM x\nCOPY --link a b"),
    ],
)
def test_an_instruction_or_a_flag_that_is_new_is_not_passed_over(text):
    with pytest.raises(Unreadable):
        for one in read(text)[0].instructions:
            pairs(one, {})


def test_instructions_are_read_as_they_are_written():
    text = 'ARG A=1\nFROM x:${A} AS y\n# no\nRUN one \\\n # but\n two\nCOPY --from=z a b\nENV P=$P:q Q="r s"'
    (stage,) = read(text, {"A": "2"})
    run, copy, env = stage.instructions
    assert (stage.base, stage.name) == ("x:2", "y")
    assert run.rest.split() == ["one", "two"]
    assert (copy.flags, copy.rest) == ({"from": "z"}, "a b")
    assert pairs(env, {"P": "p"}) == {"P": "p:q", "Q": "r s"}
    with pytest.raises(Unreadable):
        run.listed()


def test_an_engine_is_sent_what_is_installed_and_nothing_that_is_private():
    kept = ["pyproject.toml", "requirements.lock", "src/ai_mux/cli.py", "packaging/container/healthcheck.py"]
    out = [
        *("config.yaml", "config.json", ".env", "container/secrets/alice", "container/state/claude/x.json"),
        *(".git/config", ".venv/start/bin/ai-mux", "tests/conftest.py", "src/ai_mux/__pycache__/cli.pyc"),
        *("packaging/container/made-up.key", "requirements.lock.orig/x"),
    ]
    assert sent(ROOT, [*kept, *out]) == kept


def test_compose_gives_it_no_right_and_only_directories_that_must_be_there():
    assert COMPOSE["read_only"] is COMPOSE["init"] is True
    assert (COMPOSE["cap_drop"], COMPOSE["security_opt"]) == (["ALL"], ["no-new-privileges:true"])
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["ports"])
    assert all(one["bind"] == {"create_host_path": False} for one in COMPOSE["volumes"])
    assert [one["target"] for one in COMPOSE["volumes"] if not one.get("read_only")] == ["/var/lib/ai-mux"]
    assert "image" not in COMPOSE  # a name that somebody else may have in a registry


def _deployment():
    return _yaml(KUBERNETES / "deployment.yaml")["spec"]


def test_everything_that_stops_it_waits_for_a_renewal_and_running_requests(tmp_path):
    longest_s = FINISH_WAIT_S + load(None, known_providers=()).shutdown_timeout_s
    pod = _deployment()["template"]["spec"]
    waits = {COMPOSE["stop_grace_period"], f"{pod['terminationGracePeriodSeconds']}s"}
    assert waits == {"90s"}
    assert longest_s < 90


def test_kubernetes_runs_one_at_a_time_under_the_restricted_standard():
    """Source: Kubernetes' Pod Security Standards, "restricted"."""
    spec = _deployment()
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    uid = read(DOCKERFILE)[-1].instructions
    (user,) = {one.rest for one in uid if one.name == "USER"}
    context = pod["securityContext"]
    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_labels_ports_names_and_the_namespace_fit_together():
    spec, service, policy = (
        _yaml(KUBERNETES / f"{name}.yaml")["spec"] for name in ("deployment", "service", "network-policy")
    )
    labels = spec["template"]["metadata"]["labels"]
    assert (
        spec["selector"]["matchLabels"]
        == service["selector"]
        == policy["podSelector"]["matchLabels"]
        == labels
    )
    (container,) = spec["template"]["spec"]["containers"]
    ports = {one["name"] for one in container["ports"]}
    asked = {container[f"{probe}Probe"]["httpGet"]["port"] for probe in ("startup", "readiness", "liveness")}
    allowed = {one["port"] for rule in policy["ingress"] for one in rule["ports"]}
    assert asked | allowed | {one["targetPort"] for one in service["ports"]} <= ports
    made = {(kind := _yaml(file))["kind"]: kind["metadata"]["name"] for file in MANIFESTS}
    volumes = {next(iter(one.keys() - {"name"})): one for one in spec["template"]["spec"]["volumes"]}
    assert volumes["configMap"]["configMap"]["name"] == made["ConfigMap"]
    assert (
        volumes["persistentVolumeClaim"]["persistentVolumeClaim"]["claimName"]
        == made["PersistentVolumeClaim"]
    )
    spaces = {_yaml(file)["metadata"].get("namespace") for file in MANIFESTS}
    assert spaces - {None} == {made["Namespace"]}
    assert sorted(_yaml(KUBERNETES / "kustomization.yaml")["resources"]) == [file.name for file in MANIFESTS]


def _volumes():
    volumes = _deployment()["template"]["spec"]["volumes"]
    return [{kind: value for kind, value in one.items() if kind != "name"} for one in volumes]


def test_the_configuration_of_the_cluster_is_one_that_ai_mux_takes(tmp_path):
    (container,) = _deployment()["template"]["spec"]["containers"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    text = _yaml(KUBERNETES / "config.yaml")["data"]["config.yaml"]
    for name in ("alice", "admin", "anthropic"):
        assert f"{mounts['secrets']}/{name}" in text
        (tmp_path / name).write_text(f"made-up-token-of-{name}-1\n")
    file = tmp_path / "config.yaml"
    file.write_text(text.replace(mounts["secrets"], str(tmp_path)))
    modes = [next(iter(volume.values())) for volume in _volumes() if "persistentVolumeClaim" not in volume]
    for one in tmp_path.iterdir():
        one.chmod(modes[0]["defaultMode"])
    assert [mode["defaultMode"] for mode in modes] == [0o440] * 2
    config = load(file, known_providers=("claude", "chatgpt"))
    assert config.state_dir == Path(mounts["state"])
    assert {config.listen.port, config.admin.listen.port} == {
        one["containerPort"] for one in container["ports"]
    }
    assert not [one for one in config.warnings if "read it" in one or "documentation" in one]
    assert os.path.commonpath([mounts["config"], "/etc/ai-mux/config.yaml"]) == mounts["config"]
