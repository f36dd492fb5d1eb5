"""TLS: certificate and key are tried out while the configuration is read.

The keys were made for these tests and open nothing.
"""

from pathlib import Path

import pytest

from ai_mux.config import TlsConfig, load
from ai_mux.errors import ConfigError

CERTIFICATE = Path(__file__).with_suffix(".pem").read_text()

KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgipko4A6kYnlw2l3v
YulstxJ9clh9iEC8LoDwxrqKjEuhRANCAARSfSnn6yJhXUGr4jEnNVxQ7YQW8Rks
fDMSziUCZ2JQ8xyJ6SOo3MRz48CEKYp7BN9x3ENtiJeerw2XVYMUoPak
-----END PRIVATE KEY-----
"""

ANOTHER_KEY = """-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgGiA4B+BmSA1SM96k
GpG5vCIFTOR5a3t6a2HIQJGbJNGhRANCAASm+BN6O8JC/GsQEqyS7X0kSGZWmrlb
DvlhoCNZvo+hzRSvNAXWoy9MbsgK7u6fogPAnLEmbqtFzM9257SG/s1+
-----END PRIVATE KEY-----
"""

# The password is "made-up".
ENCRYPTED_KEY = """-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgNj4/VjQPYAQICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEMXtSfzgymgmsRp5nCKMiewEgZDi
suWlFIllopQEBJZR3UrOWftZz6nfFLRvCsj59E8WwAMKi24btP9v5jC9w8vjqcq+
mT8khSiocUOnVwzLGn7xsEyPnouifxx7P47+kai78c+kwlcTOkpllbeBOjptg58M
9xflZc5YsxzMNQs/Ixk4qPoihU4TWDfpC/Igzo8oPKE6N4J1l3YFU2IWK2GnPec=
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.fixture
def files(tmp_path):
    """A directory with certificates and keys, right and wrong."""
    for name, text in {
        "cert": CERTIFICATE,
        "key": KEY,
        "another": ANOTHER_KEY,
        "encrypted": ENCRYPTED_KEY,
        "cut": CERTIFICATE[:300],
        "cut-key": KEY[:80] + "\n-----END PRIVATE KEY-----\n",
        "empty": "",
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    return tmp_path


@pytest.fixture
def loaded(files):
    """Load the lines of a ``tls`` mapping, with paths inside the directory."""

    def read(*lines: str):
        file = files / "t.yaml"
        file.write_text("\n".join(["providers: [claude]", "tls:", *(f"  {line}" for line in lines)]))
        file.chmod(0o600)
        return load(file, known_providers=["claude"])

    return read


@pytest.fixture
def wrong(loaded, files):
    """Load a ``tls`` mapping that must be refused, and return the lines."""

    def read(*lines: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            loaded(*lines)
        return [line.removeprefix(f"{files}/t.yaml:") for line in caught.value.lines]

    return read


def test_a_pair_is_read(loaded, files):
    config = loaded("enabled: true", f"cert_path: {files}/cert", f"key_path: {files}/key")
    assert config.tls == TlsConfig(cert_path=files / "cert", key_path=files / "key")
    assert config.warnings == ()


@pytest.mark.parametrize("empty", [(), ('cert_path: ""', 'key_path: ""')])
def test_both_paths_are_required_when_enabled(wrong, empty):
    lines = wrong("enabled: true", *empty)
    assert ["tls.cert_path: is required" in lines[0], "tls.key_path: is required" in lines[1]] == [True, True]
    assert len(lines) == 2


def test_paths_are_not_looked_at_when_disabled(loaded, wrong):
    assert loaded("enabled: false", "cert_path: /nowhere", "key_path: ''").tls is None
    assert wrong("enabled: false", "cert_path: 5")[0].startswith("4: tls.cert_path: must be a string")


def test_a_certificate_without_enabled_is_warned_about(loaded):
    assert ["TLS is off" in line for line in loaded("cert_path: /somewhere").warnings] == [True]
    assert loaded("enabled: no", "cert_path: /somewhere").warnings == ()


@pytest.mark.parametrize(
    ("cert", "key", "at", "why"),
    [
        ("missing", "key", "4: tls.cert_path", "cannot be read (No such file"),
        ("cert", "missing", "5: tls.key_path", "cannot be read (No such file"),
        (".", "key", "4: tls.cert_path", "is a directory"),
        ("empty", "key", "4: tls.cert_path", "holds no 'BEGIN CERTIFICATE'"),
        ("key", "key", "4: tls.cert_path", "holds no 'BEGIN CERTIFICATE'"),
        ("cert", "cert", "5: tls.key_path", "holds no 'PRIVATE KEY'"),
        ("cert", "another", "5: tls.key_path", "does not belong to tls.cert_path"),
        ("cert", "encrypted", "5: tls.key_path", "is encrypted"),
        ("cut", "key", "5: tls.key_path", "are both files whole?"),
        ("cert", "cut-key", "5: tls.key_path", "are both files whole?"),
    ],
)
def test_a_pair_that_cannot_serve_is_refused(wrong, files, cert, key, at, why):
    lines = wrong("enabled: true", f"cert_path: {files}/{cert}", f"key_path: {files}/{key}")
    assert len(lines) == 1
    assert lines[0].startswith(f"{at}: ")
    assert why in lines[0]


def test_a_key_that_others_can_read_is_warned_about(loaded, files):
    (files / "key").chmod(0o644)
    (files / "cert").chmod(0o644)  # public by nature
    config = loaded("enabled: true", f"cert_path: {files}/cert", f"key_path: {files}/key")
    assert [line.partition("t.yaml:")[2] for line in config.warnings] == [
        f"5: tls.key_path: others on this machine can read it; run: chmod o-rwx '{files}/key'"
    ]
