"""``ai-mux check``: what would go wrong, before it does, and the command that mends it.

``examine`` finds, ``as_text`` and ``as_json`` say it: the first to a person, the second to a
program, in a shape that stays.

    examination   the configuration, each provider's credential, and the way to the provider
    books         limits, ledger, admin listener, audit log
    saying        for a person, for a program
"""

from ai_mux.check.examination import Examination, Examined, examine, unreadable
from ai_mux.check.saying import as_json, as_text

__all__ = ["Examination", "Examined", "as_json", "as_text", "examine", "unreadable"]
