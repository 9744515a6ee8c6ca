"""What mkdocs.yml's site has beyond docs/: pages made from the methods, the shelf and the results, and links that hold.

A link out of docs/, as README's and the tables' links are, leads to the repository; where nothing lies there the build
fails. `<!-- made: NAME -->` in a page is replaced by what `benchmarks/pages` makes of that name, and
`<!-- file: PATH -->` by that file of the repository.
"""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("stack", "adapters", "benchmarks")]

from pages import methods, plugin, results, shelf  # noqa: E402

logging.getLogger("ditstack").setLevel(logging.ERROR)
MADE = {
    "memory": shelf.memory,
    "shelf": shelf.table,
    "results": results.table,
    "matrix": results.matrix,
    "plugin": plugin.names,
}
FROM_THE_NETWORK, WORKER = "https://unpkg.com/iframe-worker/shim", "worker_on_disk.js"
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml"}
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]*)((?:#[^)\s]*)?\))")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for every method into the navigation, and beside the results the pages that it does not name."""
    assert config.nav is not None
    named = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    without = sorted(page.name for page in Path(config.docs_dir).glob("*.md") if page.name not in named)
    for entry in config.nav:
        if isinstance(entry, dict) and "Methods" in entry:
            entry["Methods"] = methods.nav()
        elif isinstance(entry, dict) and "Results" in entry:
            entry["Results"] += without
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the methods' pages, each with what a person wrote of it."""
    docs = Path(config.docs_dir)
    made = {methods.path_of(*one): methods.page(*one, methods.said_of(docs, *one)) for one in methods.every()}
    for path, text in {"methods/index.md": methods.index(), **made}.items():
        if (old := files.get_file_from_path(path)) is not None:
            files.remove(old)
        files.append(File.generated(config, path, content=text))
    unknown = [one.src_uri for one in files.documentation_pages() if _of_no_method(one.src_uri, made)]
    if unknown:
        raise PluginError(f"pages of methods that are not there: {', '.join(unknown)}")
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made, and lead links out of docs/ to the repository."""
    filled = re.sub(r"<!-- made: (\w+) -->", lambda found: MADE[found[1]](), markdown)
    filled = re.sub(r"<!-- file: (\S+) -->", lambda found: _shown(ROOT / found[1]), filled)
    here = Path(config.docs_dir, page.file.src_uri).parent

    def led(found: re.Match[str]) -> str:
        target = (here / found[2]).resolve()
        if target.is_relative_to(config.docs_dir):
            return found[0]
        if not target.exists():
            raise PluginError(f"{page.file.src_uri} links to {found[2]}, which is not there")
        return f"{found[1]}{_address(config, target)}{found[3]}"

    return LINK.sub(led, filled)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Our own worker for pages that are opened from a disk, in the place of one from the network."""
    return output.replace(FROM_THE_NETWORK, get_relative_url(WORKER, page.url))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """The same for the page of what is not there."""
    return output_content.replace(FROM_THE_NETWORK, f"/{WORKER}")


def _shown(file: Path) -> str:
    """A file as a block of code."""
    return f"```{LANGUAGES[file.suffix]}\n{file.read_text(encoding='utf-8')}```"


def _address(config: MkDocsConfig, target: Path) -> str:
    kind: Any = "tree" if target.is_dir() else "blob"
    return f"{config.extra['repository']}/{kind}/main/{target.relative_to(ROOT)}"


def _of_no_method(path: str, made: dict[str, str]) -> bool:
    return path.startswith("methods/") and path != "methods/index.md" and path not in made
