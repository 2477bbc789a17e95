"""Runs one notebook under papermill as a role of the system: `python -m pq.system.launch PLAN.json`.

The plan holds notebook, output, parameters and cwd. They come from a private file, because words on a
command line can be read by every user of the machine and papermill's `-p` would turn a name like `1`
into a number.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pq.private import opener
from pq.system import processes

LONGEST_ADDRESS = 100  # a socket's path may have 107 bytes, and `-5` is added


def main(plan: str) -> int:
    """Run the notebook of the plan; the status is papermill's: 1 for an error, 138 for a dead kernel."""
    words: dict[str, Any] = json.loads(Path(plan).read_text(encoding="utf-8"))
    parameters = words["parameters"]
    if "produced_after" in words and not _share_what_is_left(words["produced_after"], parameters):
        return 0
    return _run(words["notebook"], words["output"], parameters, words["cwd"])


def _share_what_is_left(newest: int, parameters: dict[str, Any]) -> bool:
    """Lower `count` by what this producer made before it crashed; False when nothing is left."""
    import pq
    from pq.system.bounded import made_since

    with pq.connect(parameters.get("db")) as queue:
        made = sum(1 for _ in made_since(queue, newest, [parameters["name"]]))
    parameters["count"] -= made
    return bool(parameters["count"] > 0)


def _run(notebook: str, output: str, parameters: dict[str, Any], cwd: str) -> int:
    # With JupyterLab installed jsonschema builds grammars for 1.3 s at import, which nothing here needs.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import papermill
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    _say(f"running {notebook} into {output}")
    os.close(opener(output, os.O_WRONLY | os.O_CREAT))  # papermill would make it as the umask has it
    try:
        papermill.execute_notebook(
            _literal(notebook),
            _literal(output),
            parameters,
            cwd=cwd,
            progress_bar=False,
            config=Config(KernelManager=_private_sockets()),
        )
    except DeadKernelError:
        _say("the kernel died")
        return 138
    except papermill.PapermillExecutionError as error:
        _say(str(error).strip())
        return 1
    _say(f"{notebook} has ended")
    return 0


def _private_sockets() -> dict[str, str]:
    """Kernels listen in the private folder: a port is seen by others, and two kernels may choose the same."""
    folder = os.environ.get("JUPYTER_RUNTIME_DIR")
    role = os.environ.get(processes.ROLE)
    if os.name != "posix" or not folder or not role:
        return {}
    address = f"{folder}/{role}-{os.getpid()}"
    if len(os.fsencode(address)) > LONGEST_ADDRESS:
        return {}
    return {"transport": "ipc", "ip": address, "connection_file": f"{address}.json"}


def _literal(path: str) -> str:
    """A path that papermill's own formatting of `{name}` gives back unchanged."""
    return path.replace("{", "{{").replace("}", "}}")


def _say(text: str) -> None:
    from datetime import UTC, datetime

    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}", flush=True)  # noqa: T201  # the role's log


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
