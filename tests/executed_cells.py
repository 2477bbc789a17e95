"""What the cells of an executed notebook say, without what differs between any two runs."""

import json
import re
from typing import Any


def told(notebook: Any) -> list[tuple[str, int | None, list[Any]]]:
    """Of each code cell: its source, its execution count, its outputs."""
    return [
        (cell.source, cell.execution_count, merged(cell.outputs))
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def merged(outputs: Any) -> list[Any]:
    """Neighbouring pieces of one stream are one: where they are cut is a matter of time."""
    found: list[Any] = []
    for output in map(plain, outputs):
        if found and isinstance(output, dict) and output.get("output_type") == "stream":
            last = found[-1]
            if isinstance(last, dict) and last.get("name") == output["name"]:
                last["text"] += output["text"]
                continue
        found.append(output)
    return sorted(found, key=lambda one: isinstance(one, dict) and one.get("name") == "stderr")


def plain(output: Any) -> Any:
    """What an output says, without process ids, addresses and measured times."""
    text = re.sub(r"ipykernel_\d+", "ipykernel", json.dumps(output))
    output = json.loads(re.sub(r"\b0x[0-9a-f]{6,}", "0x", text))
    if "Wall time" in text or "CPU times" in text:
        return output["output_type"]
    if "application/vnd.jupyter.widget-view+json" in text:
        return "widget"
    if output["output_type"] == "error":
        return output["ename"], output["evalue"]
    return output


def kinds(outputs: list[Any]) -> list[Any]:
    """What an output is, where what it says differs from run to run."""
    return [
        (output["output_type"], output.get("name"), sorted(output.get("data", {})))
        if isinstance(output, dict)
        else output
        if isinstance(output, str)
        else output[0]
        for output in outputs
    ]
