"""Where credentials and the ledger are kept."""

from typing import Final

LEDGER: Final = "usage.sqlite"
"""The ledger's file under ``state_dir``."""
