"""Documents: YAML of a bounded size, as plain data: words, numbers, lists and mappings, nothing that JSON cannot hold.

A document may be small and stand for much: an alias repeats what it names. So its nodes are counted as they would be
written out, before anything is made of them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

LARGEST = 2**19
"""Bytes of a document."""
MOST_NODES = 50_000
"""Values, keys and lists of a document, aliases written out."""
MOST_KEYS = 500
"""Of one mapping."""
DEEPEST = 40
LONGEST_NUMBER = 300
"""Characters of anything that is not text."""
LONGEST_KEY = 200


class Unreadable(Exception):
    """Why a document cannot be used."""


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice, which PyYAML passes over in silence."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Stop at the first node that is too deep: the scanner takes ever longer, the deeper it stands."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable(f"it is nested deeper than {DEEPEST} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # pyright: ignore[reportArgumentType]
        seen: set[Hashable] = set()
        twice = {str(key) for key in keys if isinstance(key, str | int | float) and (key in seen or seen.add(key))}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"written twice: {', '.join(sorted(twice))}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def parse(text: str) -> Any:
    """What a document says.

    Raises:
        Unreadable: it is no YAML, larger than the bounds above, or holds what a recipe cannot.
    """
    if len(text) > LARGEST:
        raise Unreadable(f"it has {len(text):,} characters; wanted at most {LARGEST:,}")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _measure(node, {}, ())
            data = loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise Unreadable(f"it is nested deeper than {DEEPEST} levels") from None
    except yaml.YAMLError as error:
        raise Unreadable(" ".join(str(error).split())[:400]) from None
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        words = " ".join(str(error).split())[:200]
        raise Unreadable(f"it holds a value that YAML cannot read ({words}); write text in quotes") from None
    _require_plain(data, ())
    return data


def _measure(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many nodes a node stands for, aliases written out.

    Raises:
        Unreadable: too many, too deep, or a node inside itself.
    """
    if id(node) in above:
        raise Unreadable("an alias stands inside what it names")
    if len(above) > DEEPEST:
        raise Unreadable(f"it is nested deeper than {DEEPEST} levels")
    if id(node) not in known:
        inner = (*above, id(node))
        known[id(node)] = 1 + sum(_measure(one, known, inner) for one in _inside(node))
    if known[id(node)] > MOST_NODES:
        raise Unreadable(f"it stands for more than {MOST_NODES:,} values, aliases written out")
    return known[id(node)]


def _inside(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        if len(node.value) > MOST_KEYS:
            raise Unreadable(f"a mapping has {len(node.value):,} keys; wanted at most {MOST_KEYS}")
        for key, value in node.value:
            if len(str(key.value)) > LONGEST_KEY:
                raise Unreadable(f"a key has more than {LONGEST_KEY} characters")
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif not node.tag.endswith(":str") and len(node.value) > LONGEST_NUMBER:
        raise Unreadable(f"a number has {len(node.value):,} characters; wanted at most {LONGEST_NUMBER}")


def _require_plain(data: Any, path: tuple[str, ...]) -> None:
    """Refuse what no JSON file, scheduler or file name could take.

    Raises:
        Unreadable: with the place.
    """
    where = f"{'.'.join(path)}: " if path else ""
    if isinstance(data, dict):
        for key, value in data.items():
            if not isinstance(key, str):
                raise Unreadable(f"{where}the key {key!r} is not text; write it in quotes")
            _require_plain(value, (*path, key))
    elif isinstance(data, list):
        for place, value in enumerate(data):
            _require_plain(value, (*path, str(place)))
    elif isinstance(data, str):
        if "\0" in data or any("\ud800" <= letter <= "\udfff" for letter in data):
            raise Unreadable(f"{where}found {data[:40]!r}, which is not text")
    elif not isinstance(data, bool | int | float | None):
        raise Unreadable(f"{where}found {str(data)[:40]!r} ({type(data).__name__}); write text in quotes")
    elif isinstance(data, int | float) and (math.isnan(data) or (isinstance(data, int) and abs(data) >= 2**63)):
        raise Unreadable(f"{where}found {str(data)[:40]}; wanted a number of at most 64 bits")
