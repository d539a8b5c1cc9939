"""A hook of mkdocs: pages below zh/ have Chinese words around them, and say so in <html lang>."""

from typing import Any


def on_page_context(context: Any, page: Any, config: Any, nav: Any) -> Any:
    """The theme reads its language when it renders a page."""
    config["theme"]["language"] = "zh" if page.file.src_uri.startswith("zh/") else "en"
    return context
