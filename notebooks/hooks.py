"""What the site needs beyond the pages: results as files, links out of this folder, names.

A page links to files of the repository as on GitHub, `../experiments/results/x.png` say. The site
has a copy of these files, and the links are rewritten to it. `mkdocs.yml` names this file.
"""

import posixpath
import re
from functools import partial
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

import afflow

ROOT = Path(__file__).parents[1]
FILES = ("experiments/**/*.py", "experiments/results/**/*.*", "tests/**/*.py", "CHANGELOG.md")
_LINK = re.compile(r"(?<=\]\()(?:\.\./)+([\w./-]+)")
_TEXT = re.compile(r'<div class="[^"]*jp-MarkdownOutput".*?</div>', re.DOTALL)
_NAMES = "<!-- names of afflow -->"


def on_files(files: Files, config: Any) -> Files:
    """Add the scripts and results of the experiments, and a list of each folder of results."""
    for path in sorted(path for pattern in FILES for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for folder in sorted({path.parent for path in ROOT.glob("experiments/results/**/*.*")}):
        name = folder.relative_to(ROOT).as_posix()
        files.append(File.generated(config, f"{name}/index.md", content=_listing(folder, name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links out of this folder at the site's copies; list the names at the top."""
    markdown = markdown.replace(_NAMES, _names())
    here = posixpath.dirname(page.file.src_uri)
    return _LINK.sub(partial(_within_site, here), markdown)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Mark the formulas of a notebook, and point its links at pages; mkdocs sees neither."""
    if page.file.src_uri.endswith(".ipynb"):
        html = re.sub(r'href="(\w+)\.md"', r'href="../\1/"', html)
        html = _TEXT.sub(lambda text: _marked(text[0]), html)
    return html


def _listing(folder: Path, title: str) -> str:
    """Return a page with links to the files of a folder, and to the lists of its folders."""
    entries = [
        f"- [{path.name}]({path.name}{'/index.md' if path.is_dir() else ''})"
        for path in sorted(folder.iterdir())
    ]
    return "\n".join([f"# {title}", "", *entries])


def _marked(text: str) -> str:
    """Return the HTML of a text cell with its formulas as arithmatex marks them."""
    text = re.sub(
        r"\$\$(.+?)\$\$", r'<span class="arithmatex">\\[\1\\]</span>', text, flags=re.DOTALL
    )
    return re.sub(r"\$([^$]+)\$", r'<span class="arithmatex">\\(\1\\)</span>', text)


def _within_site(here: str, link: re.Match) -> str:
    """Return a link to a file of the repository as a link to the site's copy."""
    if not link[0].startswith("../" * (here.count("/") + bool(here) + 1)):
        return link[0]  # it stays in this folder
    target = ROOT / link[1]
    name = f"{link[1].rstrip('/')}/index.md" if target.is_dir() else link[1]
    return posixpath.relpath(name, here or ".")


def _names() -> str:
    """Return a table of the names of `afflow` that are not packages, with links."""
    lines = ["| name | what it is |", "|---|---|"]
    for name in afflow.__all__:
        value = getattr(afflow, name)
        if callable(value):
            first = (value.__doc__ or "").partition("\n")[0].replace("|", "\\|")
            lines.append(f"| [`{name}`][{value.__module__}.{name}] | {first} |")
    return "\n".join(lines)


class Examples(griffe.Extension):
    """Read a section `Example:` as `Examples:`, which is shown as a Python session."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rename the section of one docstring."""
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
