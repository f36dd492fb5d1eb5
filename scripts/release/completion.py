"""Writes packaging/completion: what makes bash, zsh and fish complete ``ai-mux``.

Rule 1: the scripts are click's own but for zsh's last lines. They hold no words of
ours: at every TAB the shell asks the installed ``ai-mux`` itself, so that they fit
every version of it.

Rule 2: what is committed is what click gives now; a test compares.

    python scripts/release/completion.py
"""

from pathlib import Path
from typing import Final

from click.shell_completion import get_completion_class

from ai_mux.cli import cli

DIRECTORY: Final = Path(__file__).parents[2] / "packaging" / "completion"

# Named as each shell looks for it: fish and bash by the command, zsh by the function.
FILES: Final = {"bash": "ai-mux.bash", "zsh": "_ai-mux", "fish": "ai-mux.fish"}


# How click's script for zsh tells whether it was sourced or lies in fpath.
_HOW_READ: Final = "\nif [[ $zsh_eval_context"


def source(shell: str) -> str:
    """Return the script as it lies where the shell looks for it.

    That is what ``_AI_MUX_COMPLETE={shell}_source ai-mux`` prints, except for zsh: from
    fpath, click's script completes the first TAB, but at the second it only registers
    itself. Ours is called at each.

    Raises:
        ValueError: Click knows no such shell, or its script has another form.
    """
    made_by = get_completion_class(shell)
    if made_by is None:
        raise ValueError(f"click knows no shell called {shell}")
    script = made_by(cli, {}, "ai-mux", "_AI_MUX_COMPLETE").source().rstrip("\n") + "\n"
    if shell != "zsh":
        return script
    function, how_read, _ = script.partition(_HOW_READ)
    if not how_read:
        raise ValueError("click's script for zsh has another form now; look whether it still needs mending")
    return function + '\n_ai_mux_completion "$@"\n'


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for shell, name in FILES.items():
        (DIRECTORY / name).write_text(source(shell), encoding="utf-8")
