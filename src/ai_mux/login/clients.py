"""The vendors' clients: what they are called, what they want, and what they must not see."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final


class Place(Enum):
    """Where this runs, as far as it decides how somebody can log in."""

    DESKTOP = "a machine with a browser"
    HEADLESS = "a machine without a display"
    SSH = "a session over SSH"
    CONTAINER = "a container"


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorClient:
    """A vendor's client, as far as a login needs it.

    Attributes:
        title: What people call it.
        package: Where npm has it.
        command: The program and its arguments.
        without_browser: More arguments, for a machine without a browser.
        home: The variable that names the directory of its files.
        file: The credential file that it writes there.
        shares_file: The file holds more than the login, and the client keeps that when it logs in anew.
        hints: What to do without a browser, by place.
    """

    title: str
    package: str
    command: tuple[str, ...]
    without_browser: tuple[str, ...] = ()
    home: str
    file: str
    shares_file: bool = False
    hints: Mapping[Place, str]

    def arguments(self, *, browser: bool) -> tuple[str, ...]:
        """Return the command line."""
        return self.command if browser else (*self.command, *self.without_browser)

    def shown(self, directory: str, *, browser: bool) -> str:
        """Return the command line as one would type it in a shell."""
        return f"{self.home}={shlex.quote(directory)} {shlex.join(self.arguments(browser=browser))}"


_CONTAINER: Final = (
    "In a container, run this with a terminal (docker run -it, kubectl exec -it), and let the directory "
    "be a volume, or the login goes when the container does."
)
_PASTE: Final = (
    "There is no browser here. Open the address that Claude Code prints on any machine, and paste the code "
    "that you get there."
)
_DEVICE: Final = (
    "There is no browser here, so Codex is told to work with a code (--device-auth): open the address that "
    "it prints on any machine, and enter the code there. Your ChatGPT account must allow that: in its "
    "settings, under Security, device code login for Codex."
)
_FORWARD: Final = (
    "Or keep to the browser on your own machine: connect with `ssh -L 1455:localhost:1455 …`, run this with "
    "--browser, and open the address there."
)

CLIENTS: Final[Mapping[str, VendorClient]] = {
    "claude": VendorClient(
        title="Claude Code",
        package="@anthropic-ai/claude-code",
        command=("claude", "auth", "login"),
        home="CLAUDE_CONFIG_DIR",
        file=".credentials.json",
        # The logins of its MCP servers lie there as well.
        shares_file=True,
        hints={Place.HEADLESS: _PASTE, Place.SSH: _PASTE, Place.CONTAINER: f"{_PASTE} {_CONTAINER}"},
    ),
    "chatgpt": VendorClient(
        title="Codex",
        package="@openai/codex",
        # Else it may use the system's keyring, where ai-mux does not look.
        command=("codex", "login", "-c", 'cli_auth_credentials_store="file"'),
        without_browser=("--device-auth",),
        home="CODEX_HOME",
        # All of it is the login, in one of several shapes; Codex writes it anew.
        file="auth.json",
        hints={
            Place.HEADLESS: _DEVICE,
            Place.SSH: f"{_DEVICE} {_FORWARD}",
            Place.CONTAINER: f"{_DEVICE} {_CONTAINER}",
        },
    ),
}
"""By provider."""


def command_for(provider: str, config: Path | None) -> str | None:
    """Return the sentence that tells how to log in anew, or None where no vendor's client does it.

    Args:
        provider: Its name.
        config: The configuration file in use, or None for the defaults.
    """
    if provider not in CLIENTS:
        return None
    return f"run `ai-mux login {provider}{_with(config)}`"


def token_command_for(provider: str, config: Path | None) -> str | None:
    """Return the sentence that tells how to get another long-lived token, as ``command_for`` does."""
    if provider != "claude":
        return None
    return f"run `claude setup-token`, then `ai-mux login claude --token-stdin{_with(config)}`"


def _with(config: Path | None) -> str:
    return "" if config is None else f" --config {shlex.quote(str(config))}"


# What configures the vendors' clients, and us. Much of it would send a login elsewhere or take its
# place (ANTHROPIC_BASE_URL, CLAUDE_CODE_OAUTH_TOKEN, CLAUDE_CODE_USE_BEDROCK, CODEX_API_KEY), AI_MUX_TOKEN is
# our user's secret, and new ones are invented with each version: so all of it goes.
_CONFIGURING: Final = ("ANTHROPIC_", "CLAUDE_", "CLAUDECODE", "CODEX_", "OPENAI_", "AI_MUX_")
# But for what says how to trust, or be trusted by, a network that inspects TLS.
_TRUSTING: Final = frozenset(
    {
        "CLAUDE_CODE_CERT_STORE",
        "CLAUDE_CODE_CLIENT_CERT",
        "CLAUDE_CODE_CLIENT_KEY",
        "CLAUDE_CODE_CLIENT_KEY_PASSPHRASE",
        "CODEX_CA_CERTIFICATE",
    }
)


def left_out(environ: Mapping[str, str]) -> Sequence[str]:
    """Return the names of the variables that a vendor's client must not see, sorted."""
    return sorted(name for name in environ if name.startswith(_CONFIGURING) and name not in _TRUSTING)


def place(environ: Mapping[str, str], *, platform: str, exists: Callable[[str], bool]) -> Place:
    """Return where this runs.

    Args:
        environ: The process's environment.
        platform: ``sys.platform``.
        exists: Tells whether a file exists.
    """
    # Docker and Podman leave these files, Kubernetes and systemd-nspawn set variables.
    if exists("/.dockerenv") or exists("/run/.containerenv"):
        return Place.CONTAINER
    if environ.get("KUBERNETES_SERVICE_HOST") or environ.get("container"):
        return Place.CONTAINER
    if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
        return Place.SSH
    # WSL opens the browser of Windows.
    has_screen = any(
        environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME", "BROWSER")
    )
    return Place.DESKTOP if platform == "darwin" or has_screen else Place.HEADLESS
