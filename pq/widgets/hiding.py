"""What is not sent to a browser: values whose name matches a pattern, and letters that would mislead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import translate
from typing import Any

PATTERNS = ("*password*", "*token*", "*secret*")
HIDDEN = "•••"
DEPTH = 20
TEXT_LENGTH = 500
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")
# What turns the direction of the text around it, or has no width, is shown by its number.
_MISLEADING = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Hiding:
    """Hides by name: `*password*` matches any name with password in it, in either case."""

    def __init__(self, patterns: Sequence[str] = PATTERNS) -> None:
        self.patterns = tuple(patterns)
        self._expression = re.compile("|".join(map(translate, self.patterns)) or r"(?!)", re.IGNORECASE)

    def hide(self, value: Any, depth: int = DEPTH) -> Any:
        """`value` with •••  for everything whose name matches.

        What lies deeper than 20 levels is left out: nobody reads it there, and nesting must not stop a page.
        """
        if not depth:
            return "…"
        if isinstance(value, Mapping):
            return {
                name: HIDDEN if self._expression.match(str(name)) else self.hide(inner, depth - 1)
                for name, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.hide(inner, depth - 1) for inner in value]
        return value

    def hides(self, name: str) -> bool:
        """Whether the value of this name is not sent."""
        return self._expression.match(name) is not None

    def restore(self, changed: Any, original: Any) -> Any:
        """`changed` with the hidden values that a person left as they were put back from `original`."""
        if isinstance(changed, dict) and isinstance(original, Mapping):
            return {
                name: original[name]
                if inner == HIDDEN and name in original and self._expression.match(name)
                else self.restore(inner, original.get(name))
                for name, inner in changed.items()
            }
        if isinstance(changed, list) and isinstance(original, list | tuple):
            pairs = [*original, *[None] * max(0, len(changed) - len(original))]
            return [self.restore(inner, old) for inner, old in zip(changed, pairs, strict=False)]
        return changed


def clean(text: str, length: int = TEXT_LENGTH) -> str:
    """`text` fit for sending and for reading: cut, without terminal colours, nothing invisible in it."""
    cut = text if len(text) <= length else f"{text[: length - 1]}…"
    plain = _ANSI.sub("", cut)
    plain = _CONTROL.sub(_picture, plain)
    plain = _MISLEADING.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", plain)
    return plain.encode("utf-8", "replace").decode()


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] == "\r":
        return ""
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"
