"""Hooks of mkdocs, named in mkdocs.yml: pages for files outside of docs/, and links to them."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from documentation import links

# Shown in the navigation.
ALSO = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples")

# Weights in the search: who looks for a word looks for how to do it first, and for names after that.
RANKS = {"recipes/": 2.0, "tutorial/": 1.0, "api/": 0.01, "runbooks/": 0.3, "telemetry.md": 0.2, "dashboards.md": 0.3}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file outside of docs/ that a page links to."""
    pages = {links.DOCS + file.src_uri: file.content_string for file in files.documentation_pages()}
    for target in sorted(links.shown(pages, ALSO)):
        text = links.rewritten(links.text_of(target), links.source_of(target), links.page_of(target))
        inclusion = InclusionLevel.UNDEFINED if target in ALSO else InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, links.page_of(target), content=text, inclusion=inclusion))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Change the links of a page of docs/ to those of the site, and order the pages for the search."""
    name = page.file.src_uri
    if name.startswith(links.FILES):
        page.meta["search"] = {"exclude": True}
        return markdown
    folder = next((folder for folder in RANKS if name.startswith(folder)), None)
    if folder is not None:
        page.meta["search"] = {"boost": RANKS[folder]}
    return links.rewritten(markdown, links.DOCS + name, name)
