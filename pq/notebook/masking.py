"""Secrets by reference: found in a run's parameters, kept out of everything that the run writes."""

import html
import json
import os
from collections.abc import Mapping
from typing import Any

from pq.errors import NotebookError
from pq.notebook.inspecting import is_secret, secret_name

MASK = "•••"


class Masking:
    """Replaces the text of secrets by •••; one without secrets gives everything back as it is."""

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        """`parameters` as the job carries them; the secrets are looked up in this process's environment."""
        self.names = {name: secret_name(value) for name, value in parameters.items() if is_secret(value)}
        missing = sorted(name for name in self.names.values() if not os.environ.get(name))
        if missing:
            raise NotebookError(
                f"the secret {', '.join(missing)} is not set: start the consumer with it in its environment"
            )
        self._texts = sorted(
            _writings(os.environ[name] for name in self.names.values()), key=len, reverse=True
        )

    def code(self) -> str:
        """Python that fetches the secrets inside the kernel; "" where there are none."""
        if not self.names:
            return ""
        lines = [f"{name} = __import__('os').environ[{variable!r}]" for name, variable in self.names.items()]
        return "\n".join(["# Secrets", *lines, ""])

    def text(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._texts:
            text = text.replace(secret, MASK)
        return text

    def value(self, value: Any) -> Any:
        """A copy of a JSON value without secrets, in keys too."""
        if not self._texts:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value


def _writings(secrets: Any) -> set[str]:
    """Each secret as it may stand in an output: as it is, in a repr, in JSON, in HTML."""
    found = set()
    for secret in secrets:
        found |= {secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], html.escape(secret)}
    return found
