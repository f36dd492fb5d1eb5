"""``ai-mux login``: the vendor's own client logs in, into ai-mux's own directory.

Rule 1: it is the vendor's program that logs in, on the terminal of whoever runs
this. ai-mux speaks no OAuth here and reads nothing of what is typed.

Rule 2: the client works in an empty directory of its own. Only what turns out to
be a login is moved into place, at once; an attempt that fails or is given up costs
the login that was there nothing.

Rule 3: a login that was made and cannot be put in place stays where it is, and
the message says where.

Rule 4: a login that still works is replaced when somebody said so: asked on a
terminal, or with ``--force``. What its file holds beside it stays.

    clients   what each vendor's client is called and wants; where we are running
    placing   directories, and the move into place
    advice    what a person is told
    flow      what happens, in order
    token     a long-lived token instead of a login
"""

from ai_mux.login.clients import command_for, token_command_for
from ai_mux.login.flow import log_in
from ai_mux.login.token import keep_token

__all__ = ["command_for", "keep_token", "log_in", "token_command_for"]
