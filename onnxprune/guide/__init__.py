"""The guides: pages of Markdown in this folder; ``onnxprune help`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files


def topics() -> Mapping[str, str]:
    """Topic to title, by topic: every page of the folder, and its first heading."""
    pages = sorted(page.name for page in files(__name__).iterdir() if page.name.endswith(".md"))
    names = [name.removesuffix(".md") for name in pages]
    return {name: text(name).split("\n", 1)[0].removeprefix("# ") for name in names}


def text(topic: str) -> str:
    """The page, as Markdown.

    Raises:
        FileNotFoundError: there is no such page.
    """
    return files(__name__).joinpath(f"{topic}.md").read_text(encoding="utf-8")
