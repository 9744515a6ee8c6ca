"""The reference of all that a method may import, in the order of `ditstack.plugin`'s rooms."""

from __future__ import annotations

from ditstack import plugin


def names() -> str:
    """A line for mkdocstrings for each class and function, then the constants."""
    lines: list[str] = []
    for name in plugin.__all__:
        one = getattr(plugin, name)
        home = getattr(one, "__module__", "")  # errors are on the page of the facade; an alias has no home here
        if callable(one) and home.startswith("ditstack.") and home != "ditstack.errors":
            lines += [f"::: {home}.{name}", ""]
    plain = [name for name in plugin.__all__ if isinstance(getattr(plugin, name), str)]
    lines += [
        "## Kinds of steps",
        "",
        ", ".join(f"`{name}`" for name in plain) + ": the words of a schedule and of a pass.",
        "",
    ]
    modules = [name for name in plugin.__all__ if type(getattr(plugin, name)).__name__ == "module"]
    for name in modules:
        lines += [f"::: {getattr(plugin, name).__name__}", ""]
    return "\n".join(lines)
