"""The programs of scripts/release, for tests that look into them."""

import importlib.util
import sys
from types import ModuleType
from typing import Final

from documents import ROOT

SCRIPTS: Final = ROOT / "scripts" / "release"
RELEASE_PYTHON: Final = ROOT / ".venv" / "release" / "bin" / "python"  # made by scripts/release/build


def script(name: str) -> ModuleType:
    """Return one of them as a module."""
    spec = importlib.util.spec_from_file_location(f"release_{name}", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for what its annotations mean
    spec.loader.exec_module(module)
    return module
