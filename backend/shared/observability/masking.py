"""Secrets are taken out of whatever leaves the process as text: log lines, problem details, reports.

It masks too much rather than too little. Every step is linear in the length of the text, since parts of it come from
callers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from backend.shared.environment import SECRET_PARAMETER

MASK = "***"
MAX_TEXT_LENGTH = 16_384
_MAX_DEPTH = 8

_SECRET_WORDS = (
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "cookie",
    "apikey",
    "privatekey",
    "signingkey",
    "credential",
)
_SEPARATORS = str.maketrans("", "", "-_ .")

# Cheap look at whether any of the rules below can have work to do.
_SUSPICIOUS = re.compile(
    r"://|passw|passphrase|pwd|secret|token|authoriz|cookie|api[_-]?key|private[ _-]?key|signing[_-]?key|credential"
    r"|bearer|eyJ|\$argon2|\$2[aby]\$|\[parameters:|Failing row|dup key|full error",
    re.IGNORECASE,
)
_WORD = re.compile(r"\S+")
_CREDENTIALS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*", re.DOTALL), MASK),
    (re.compile(r"(?<![\w-])eyJ[\w-]{4,}\.[\w-]*\.?[\w-]*"), MASK),
    (re.compile(r"\$(?:argon2\w{0,2}|2[aby])\$[\w$=,./+-]+"), MASK),
    (re.compile(r"(?i)\b(bearer)\s{1,4}[\w.~+/=-]{20,}"), rf"\1 {MASK}"),
    # SQLAlchemy and PostgreSQL quote whole rows in their messages.
    (re.compile(r"\[parameters: [^\n]*"), "[parameters: hidden]"),
    (re.compile(r"Failing row contains [^\n]*"), "Failing row contains (hidden)"),
    # So does MongoDB, and its driver adds the server's whole answer.
    (re.compile(r"dup key: .*", re.DOTALL), "dup key: (hidden)"),
    (re.compile(r"full error: [^\n]*"), "full error: (hidden)"),
)
_ASSIGNMENT = re.compile(
    r"(?i)((?:password|passwd|passphrase|pwd|secret|token|cookie|api[_-]?key|private[_-]?key|signing[_-]?key|credential)"
    r"[\w-]{0,32}[\"']?\s{0,4}[=:]\s{0,4})"
    r"(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|\S+)"
)
_AUTHORIZATION = re.compile(r"(?i)(authorization[\"']?\s{0,4}[=:]\s{0,4})[^\n]+")


def is_secret_name(name: str) -> bool:
    """Whether a value under this name (a field, a header, a log key) is never to be shown."""
    plain = name.lower().translate(_SEPARATORS)
    return any(word in plain for word in _SECRET_WORDS)


def mask_text(text: str, *, assignments: bool = True) -> str:
    """`text` without passwords in URLs, tokens, password hashes, private keys and quoted rows.

    `assignments` also masks what follows `password=`, `token:` and the like; switch it off for sentences meant for
    people. Longer texts than `MAX_TEXT_LENGTH` are cut.
    """
    if len(text) > MAX_TEXT_LENGTH:
        text = f"{text[:MAX_TEXT_LENGTH]}…[cut]"
    if not _SUSPICIOUS.search(text):
        return text
    if "://" in text:
        text = _WORD.sub(_mask_url, text)
    for pattern, replacement in _CREDENTIALS:
        text = pattern.sub(replacement, text)
    if assignments:
        text = _AUTHORIZATION.sub(rf"\1{MASK}", text)
        text = _ASSIGNMENT.sub(rf"\1{MASK}", text)
    return text


def mask_value(value: Any, *, depth: int = 0) -> Any:
    """A JSON-able copy of `value`: secret names masked at every level, other objects as masked text."""
    if isinstance(value, str):
        return mask_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): _mask_named(str(key), item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [mask_value(item, depth=depth + 1) for item in value]
    return mask_text(str(value))


def _mask_named(name: str, value: Any, *, depth: int) -> Any:
    if is_secret_name(name) and value is not None and not isinstance(value, bool):
        return MASK
    return mask_value(value, depth=depth)


def _mask_url(match: re.Match[str]) -> str:
    word = SECRET_PARAMETER.sub(rf"\1={MASK}", match.group())
    scheme_end = word.find("://")
    at = word.rfind("@")
    if scheme_end < 0 or at < scheme_end:
        return word
    # The last "@" counts: a password may hold "@", "/" and ":" that nobody percent-encoded.
    colon = word.find(":", scheme_end + 3, at)
    return word if colon < 0 else f"{word[: colon + 1]}{MASK}{word[at:]}"
