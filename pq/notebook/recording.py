"""Values that a notebook tells: `pq.record` shows them and stores them in the executed notebook."""

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

from pq import values
from pq.errors import InvalidJobError

MIME = "application/vnd.pq.record+json"
DISPLAY = "pq_record"
JSON_TYPES = (str, int, float, list, tuple, dict, type(None))
SCRAP, SCRAP_END = "application/scrapbook.scrap.", "+json"


def record(**named: Any) -> None:
    """Show the values, and keep them as results of this run: `pq.record(accuracy=0.93)`.

    JSON values are stored as they are; numbers and arrays of numpy are made JSON, and what is no finite
    number becomes null. What a notebook can show (a figure, a frame) is shown and kept as a display: the
    executed notebook holds it (`pq.displays`), the job's result only names its types. A name that is
    recorded again replaces the first. Outside of a run of pq this only shows them.
    """
    shown = {name: data for name, value in named.items() if (data := _display(value))}
    found = {name: _json(value, name) for name, value in named.items() if name not in shown}
    values.to_json(found, "a record")
    text = "\n".join(f"{name} = {_shown(value)}" for name, value in named.items() if name not in shown)
    if _shell() is None:
        print(text)  # noqa: T201  # there is no other place to show it
        return
    from IPython.display import publish_display_data

    if found:
        publish_display_data({"text/plain": text, MIME: found})
    for name, (bundle, metadata) in shown.items():
        publish_display_data(bundle, {**metadata, DISPLAY: name})


def records(notebook: Any) -> dict[str, Any]:
    """What an executed notebook recorded, by name, the latest of each; values glued by scrapbook too."""
    found: dict[str, Any] = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            if isinstance(name := output.get("metadata", {}).get(DISPLAY), str):
                found[name] = {"display": sorted(output.get("data", {}))}
            for mime, data in output.get("data", {}).items():
                if mime == MIME and isinstance(data, Mapping):
                    found.update({name: _finite(value) for name, value in data.items()})
                elif mime.startswith(SCRAP) and mime.endswith(SCRAP_END) and isinstance(data, Mapping):
                    found.update(_scrap(data))
    return found


def displays(notebook: Any) -> dict[str, dict[str, Any]]:
    """The displays that an executed notebook recorded, by name, each as data by MIME type (PNG in base64)."""
    return {
        name: dict(output.get("data", {}))
        for cell in notebook["cells"]
        for output in cell.get("outputs", ())
        if isinstance(name := output.get("metadata", {}).get(DISPLAY), str)
    }


def _display(value: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What the kernel shows of a value that is more than text, with its metadata; None for all else."""
    shell = _shell()
    if shell is None or isinstance(value, JSON_TYPES) or hasattr(value, "tolist"):
        return None
    data, metadata = shell.display_formatter.format(value)
    return (data, metadata) if set(data) - {"text/plain"} else None


def _scrap(data: Mapping[str, Any]) -> dict[str, Any]:
    """Scrapbook's envelope; only values that it stored as JSON or as text are values here too."""
    if data.get("encoder") in {"json", "text"} and isinstance(data.get("name"), str):
        return {data["name"]: _finite(data.get("data"))}
    return {}


def _json(value: Any, name: str) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    elif hasattr(value, "item"):
        value = value.item()
    value = _finite(value)
    try:
        # Tuples become lists here: for a result, unlike for a parameter, that is what is meant.
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJobError(
            f"cannot record {name}: {error}; give JSON values, or write a file and record its path"
        ) from None


def _finite(value: Any) -> Any:
    """The value with null for nan and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:500]


def _shell() -> Any:
    """The shell of the Jupyter kernel this process is, else None."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return None if getattr(shell, "kernel", None) is None else shell
