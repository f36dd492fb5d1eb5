"""What some tests need besides ai-mux, and what becomes of them where it is not there.

What did not run is said aloud, in the last lines of the run. Where the environment says so
(``AI_MUX_PACKAGING=required``, for one), a program that is missing is a failure; what a machine
does not allow is not, since nobody can install it.
"""

import os
import shutil
from typing import Final, NoReturn

import pytest
from documents import ROOT

# Made by scripts/release/checkers. Its versions are locked, so they come before those of the machine.
_CHECKERS: Final = ROOT / ".venv" / "packaging" / "bin"
# Where Debian puts nginx, and only root looks.
_SYSTEM: Final = ("/usr/sbin", "/usr/local/sbin")
_NOT_RUN: Final = pytest.StashKey[dict[str, list[str]]]()


def program(name: str, config: pytest.Config, *, area: str, required_by: str) -> str:
    """Return a program's path, or skip the test where it is not installed.

    Args:
        name: The command.
        config: Of this run.
        area: Whose tests do not run without it, as the run's last lines call them.
        required_by: The environment variable that makes its lack a failure.
    """
    places = os.pathsep.join((str(_CHECKERS), os.environ.get("PATH", os.defpath), *_SYSTEM))
    found = shutil.which(name, path=places)
    if found is None:
        lacking(f"{name} is missing", config, area=area, required_by=required_by)
    return found


def lacking(why: str, config: pytest.Config, *, area: str, required_by: str) -> NoReturn:
    """Fail where what is missing is required, and skip the test elsewhere."""
    if os.environ.get(required_by) == "required":
        pytest.fail(f"{required_by}=required: {why}")
    skip(why, config, area=area)


def skip(why: str, config: pytest.Config, *, area: str) -> NoReturn:
    """Skip the test, and say why in the run's last lines."""
    told = config.stash.setdefault(_NOT_RUN, {}).setdefault(area, [])
    if why not in told:
        told.append(why)
    pytest.skip(why)


def summary(config: pytest.Config) -> list[str]:
    """Return what did not run, a line for each reason."""
    areas = config.stash.get(_NOT_RUN, {})
    return [f"{area} TESTS NOT RUN: {why}" for area, told in areas.items() for why in told]
