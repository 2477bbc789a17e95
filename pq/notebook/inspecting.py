"""What a notebook takes: its parameters cell is read without running it, and parameters are held against it.

Papermill's own inspection reads the cell line by line with a pattern, and takes 0.3 to 1.7 s to import;
this reads Python's syntax tree, which knows annotations, defaults over several lines, and what is required.
"""

import ast
import hashlib
import io
import json
import keyword
import os
import re
import tokenize
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pq.errors import InvalidJobError, NotebookMissingError
from pq.notebook.fitting import describe, fits, type_of

NOTEBOOK_BYTES = 100_000_000
SECRET = "secret:"  # noqa: S105  # how a reference begins
ROOT = "PQ_NOTEBOOK_ROOT"
# Papermill writes texts into these languages' double quotes, where $ and ` run code.
EXACT_TEXT = ("python", "r", "bash")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One name of the parameters cell; `kind` is its annotation or its default's type, None if unknown.

    `default` is Python source, `help` the comment in its last line; both are for people to read.
    """

    name: str
    kind: ast.expr | None
    required: bool
    default: str = ""
    help: str = ""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A notebook as it lies on the disk. `parameters` is None where its language cannot be read."""

    path: Path
    sha256: str
    language: str
    kernel: str | None
    parameters: Mapping[str, Parameter] | None

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise InvalidJobError unless these parameters can go into this notebook."""
        for name, value in values.items():
            check_name(name)
            check_secret(value, self.language)
            if self.language not in EXACT_TEXT:
                _check_text(name, value, self.language)
        if self.parameters is not None:
            self._check_names(values, self.parameters)
            for name, value in values.items():
                self._check_type(self.parameters[name], value)

    def _check_names(self, values: Mapping[str, Any], known: Mapping[str, Parameter]) -> None:
        unknown = sorted(values.keys() - known.keys())
        if unknown and not known:
            raise InvalidJobError(
                f"{self.path.name} takes no parameters, so not {', '.join(unknown)}: "
                "give the cell that sets them the tag `parameters`"
            )
        if unknown:
            raise InvalidJobError(
                f"{self.path.name} has no parameter {', '.join(unknown)}; it takes {', '.join(known)}"
            )
        missing = [name for name, one in known.items() if one.required and name not in values]
        if missing:
            raise InvalidJobError(f"{self.path.name} needs {', '.join(missing)}: it has no default")

    def _check_type(self, parameter: Parameter, value: Any) -> None:
        if parameter.kind is None or is_secret(value) or fits(parameter.kind, value):
            return
        raise InvalidJobError(
            f"{parameter.name} of {self.path.name} must be {describe(parameter.kind)}, not {value!r:.80}; "
            "where it may be more, annotate it in the parameters cell"
        )


def inspect_notebook(path: Path) -> Inspected:
    """Read a notebook. Raises NotebookMissingError where there is none."""
    document, sha256 = read_notebook(path)
    language, kernel = spoken(document)
    known = _parameters(document, path) if language == "python" else None
    return Inspected(path, sha256, language, kernel, known)


def read_notebook(path: Path) -> tuple[dict[str, Any], str]:
    """The notebook's JSON and the hash of its bytes."""
    try:
        if path.stat().st_size > NOTEBOOK_BYTES:
            raise NotebookMissingError(f"cannot run {path}: it has more than {NOTEBOOK_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise NotebookMissingError(f"cannot run {path}: {error.strerror or error}") from None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or "nbformat" not in document:
        raise NotebookMissingError(f"cannot run {path}: it is no notebook")
    if document["nbformat"] != 4 or not _has_cells(document):
        raise NotebookMissingError(
            f"cannot run {path}: it is no notebook of format 4; open it in Jupyter and save it"
        )
    return document, hashlib.sha256(data).hexdigest()


def _has_cells(document: Mapping[str, Any]) -> bool:
    cells = document.get("cells")
    return isinstance(cells, list) and all(
        isinstance(cell, dict) and isinstance(cell.get("metadata", {}), dict) and "cell_type" in cell
        for cell in cells
    )


def spoken(document: Mapping[str, Any]) -> tuple[str, str | None]:
    """The notebook's language, in small letters, and the kernel's name."""
    metadata = document.get("metadata") or {}
    spec = metadata.get("kernelspec") or {}
    language = spec.get("language") or (metadata.get("language_info") or {}).get("name") or "python"
    name = spec.get("name")
    return str(language).lower(), None if name is None else str(name)


def locate(given: str | os.PathLike[str], folder: Path) -> Path:
    """The real path of a notebook; a relative one is looked for here, then beside the database.

    It must lie within PQ_NOTEBOOK_ROOT (several are parted as in PATH), else within the database's folder
    or the current one; a symbolic link does not lead out.
    """
    text = str(os.fspath(given))
    if not text or "\0" in text or "://" in text or text == "-":
        raise NotebookMissingError(f"cannot run {text!r:.200}: give the path of a notebook file")
    path = Path(text).expanduser()
    tried = [path] if path.is_absolute() else [Path.cwd() / path, folder / path]
    found = next((one for one in tried if one.is_file()), None)
    if found is None:
        raise NotebookMissingError(f"there is no notebook {text}; looked for {' and '.join(map(str, tried))}")
    real = Path(os.path.realpath(found))
    roots = allowed_roots() or [Path(os.path.realpath(folder)), Path(os.path.realpath(Path.cwd()))]
    return within(real, roots)


def within(real: Path, roots: list[Path]) -> Path:
    """`real` again. Raises NotebookMissingError where it lies outside all of the roots."""
    if not any(real.is_relative_to(root) for root in roots):
        raise NotebookMissingError(
            f"cannot run {real}: it lies outside {', '.join(map(str, roots))}; set {ROOT} to allow its folder"
        )
    return real


def allowed_roots() -> list[Path]:
    """The folders of PQ_NOTEBOOK_ROOT; none where it is not set."""
    return [Path(os.path.realpath(one)) for one in os.environ.get(ROOT, "").split(os.pathsep) if one]


def check_name(name: object) -> None:
    """Papermill writes names into code as they are, so they must be plain identifiers."""
    if (
        not isinstance(name, str)
        or not name.isidentifier()
        or keyword.iskeyword(name)
        or unicodedata.normalize("NFKC", name) != name
    ):
        raise InvalidJobError(f"a parameter's name must be an identifier, not {name!r:.100}")


def is_secret(value: object) -> bool:
    """Whether the value stands for an environment variable of the kernel."""
    return isinstance(value, str) and value.startswith(SECRET)


def secret_name(value: str) -> str:
    """The environment variable that `secret:NAME` names."""
    return value.removeprefix(SECRET)


def check_secret(value: object, language: str) -> None:
    """Raise InvalidJobError for a reference that could not be resolved."""
    if not is_secret(value):
        return
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", secret_name(str(value))):
        raise InvalidJobError(
            f"a secret is named secret:NAME, by an environment variable, not {value!r:.100}"
        )
    if language != "python":
        raise InvalidJobError(f"secrets can be given to Python notebooks only; this one speaks {language}")


def _check_text(name: str, value: Any, language: str) -> None:
    for text in _texts(value):
        if any(sign in text for sign in "$`\\") or "#{" in text:
            raise InvalidJobError(
                f"{name} has one of $ ` \\ #{{ in a text, which {language} would run or change; "
                "write it to a file and pass its path"
            )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _parameters(document: Mapping[str, Any], path: Path) -> dict[str, Parameter]:
    cell = next(
        (cell for cell in document["cells"] if "parameters" in cell.get("metadata", {}).get("tags", [])), None
    )
    if cell is None:
        return {}
    source = cell.get("source", "")
    lines = ("".join(source) if isinstance(source, list) else str(source)).splitlines()
    # Magics and shell lines are IPython's, not Python's.
    text = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)
    try:
        tree = ast.parse(text, type_comments=True)
    except (SyntaxError, ValueError):
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as error:
            raise NotebookMissingError(f"the parameters cell of {path} is not Python: {error}") from None
    found: dict[str, Parameter] = {}
    comments = _comments(text)
    for node in tree.body:
        words = comments.get(node.end_lineno or 0, "")
        for one in _assigned(node):
            found[one.name] = replace(one, help=words)
    return found


def _assigned(node: ast.stmt) -> Iterator[Parameter]:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        default = "" if node.value is None else ast.unparse(node.value)
        yield Parameter(node.target.id, node.annotation, required=node.value is None, default=default)
    elif isinstance(node, ast.Assign):
        kind = _commented(node.type_comment) or type_of(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield Parameter(target.id, kind, required=False, default=ast.unparse(node.value))
            elif isinstance(target, ast.Tuple | ast.List):
                for one in target.elts:
                    if isinstance(one, ast.Name):
                        yield Parameter(one.id, None, required=False)


def _comments(text: str) -> dict[int, str]:
    """The comment of each line, without papermill's `type: int`."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    return {line: re.sub(r"^#\s*(type:\s*\S+\s*)?", "", words) for line, words in found.items()}


def _commented(comment: str | None) -> ast.expr | None:
    """The type in papermill's `# type: int`; words after it are help."""
    if not comment:
        return None
    try:
        return ast.parse(comment.split("  ")[0].strip(), mode="eval").body
    except SyntaxError:
        return None
