"""The licence of the published checkpoints: shown, asked for once, and the answer kept in the cache.

Nothing is fetched or made without it. Only a person can accept: where none can be asked, it counts as refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import date

from ...config import VToonifyError
from ..downloads import cache_folder, write_json
from .presets import LICENCE, LICENCE_NOTICE, LICENCE_URL

CONSENT = "consent.json"
QUESTION = "Do you accept this licence? [y/N] "


def has_consent() -> bool:
    """True when the licence was accepted on this machine before."""
    try:
        return LICENCE in json.loads((cache_folder() / CONSENT).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def require_consent(accepted: bool, ask: Callable[[str], bool] | None, tell: Callable[[str], object]) -> None:
    """Return if the licence was accepted, now or before; VToonifyError otherwise."""
    if has_consent():
        return
    if accepted:
        tell(LICENCE_NOTICE)
    elif ask is None or not ask(LICENCE_NOTICE):
        raise VToonifyError(f"the published checkpoints are under the {LICENCE} (non-commercial use only: "
                            f"{LICENCE_URL}), which was not accepted; if you accept it, add --accept-licence, or "
                            "accept_licence=True in Python")
    write_json(cache_folder() / CONSENT, {LICENCE: {"accepted": date.today().isoformat(), "url": LICENCE_URL}})


def ask_user(notice: str) -> bool:
    """Show the notice and wait for an answer, in a notebook or a terminal. False where nobody can answer."""
    try:
        if in_notebook():
            print(notice)
            answer = input(QUESTION)
        elif sys.stdin is not None and sys.stdin.isatty():
            print(f"{notice}\n{QUESTION}", end="", file=sys.stderr, flush=True)  # the result alone goes to stdout
            answer = sys.stdin.readline()
        else:
            return False
    except (EOFError, RuntimeError):  # no more input; a notebook that runs without a front end
        return False
    return answer.strip().lower() in ("y", "yes")


def in_notebook() -> bool:
    """True inside a Jupyter or Colab kernel, where `input` opens a field."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython() if ipython else None, "kernel")
