"""A YAML file of parameters or of a sweep, read so that a small file cannot become an enormous value."""

from pathlib import Path
from typing import Any

from pq.errors import InvalidJobError

MOST_BYTES = 20_000_000
MOST_VALUES = 2_000_000


def read_yaml(file: Path) -> dict[str, Any]:
    """The names and values in the file; nothing for an empty one. Raises InvalidJobError."""
    import yaml  # type: ignore[import-untyped]  # it has no types of its own

    try:
        with file.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise InvalidJobError(f"{file} has more than {MOST_BYTES // 10**6} MB")
        found = _loaded(data.decode(), file)
    except OSError as error:
        raise InvalidJobError(f"cannot read {file}: {error.strerror}") from None
    except RecursionError:
        raise InvalidJobError(f"{file} is nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, OverflowError) as error:
        if isinstance(error, InvalidJobError):
            raise
        raise InvalidJobError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidJobError(f"{file} must hold names and values, not {type(found).__name__}")
    return found


def _loaded(text: str, file: Path) -> Any:
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        # Looked at before anything is built: `&a` and `*a` may name one part a billion times.
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}, file) > MOST_VALUES:
            raise InvalidJobError(
                f"{file} has more than {MOST_VALUES:,} values, as its aliases are written out"
            )
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: Any, known: dict[int, float], file: Path) -> float:
    """How many values the node is, written out; without end where it holds itself."""
    if isinstance(node.value, str):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")
        parts = node.value
        if parts and isinstance(parts[0], tuple):
            _check_names([name.value for name, _ in parts if isinstance(name.value, str)], file)
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_size(part, known, file) for part in parts)
    return known[id(node)]


def _check_names(names: list[str], file: Path) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidJobError(f"{file} has {twice!r:.100} twice in one place")
