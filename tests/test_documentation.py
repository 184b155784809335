"""READMEs and docs say what is there: the same in both languages, every parameter, links that lead somewhere."""

import json
import re
from collections.abc import Iterator
from typing import Any

import click
import pytest
from conftest import ROOT

from ms_ocr_handwritten.cli import main

READMES = ("README.md", "README.zh-CN.md")
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

MANUALS = sorted([*PAGES, "benchmarks/README.md", "ms_ocr_handwritten/assets/README.md", "recipe/README.md"])


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def leaves(section: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_parameter_is_explained_with_its_value():
    rows = re.findall(r"^\| `([\w.]+)` \| `(.+?)` \|", text("docs/configuration.md"), re.M)
    assert len(rows) == len(dict(rows))
    assert {key: json.loads(value) for key, value in rows} == dict(leaves(json.loads(text("configuration.json"))))


@pytest.mark.parametrize("readme", READMES)
def test_a_readme_has_two_screens(readme):
    assert len(text(readme).splitlines()) <= 160


def test_both_readmes_have_the_same_commands():
    commands = [re.findall(r"^```bash\n(.*?)^```", text(readme), re.M | re.S) for readme in READMES]
    assert len(commands[0]) > 2
    bare = [[re.sub(r" +#.*$", "", block, flags=re.M) for block in blocks] for blocks in commands]  # less the comments
    assert bare[0] == bare[1]


def test_both_readmes_have_the_same_code_and_figures():
    def figures(readme: str) -> list[list[str]]:
        tables = re.findall(r"(?:^\|.*\n)+", text(readme), re.M)
        return [re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])", table) for table in tables]

    def code(readme: str) -> list[list[str]]:
        blocks = re.findall(r"^```python\n(.*?)^```", text(readme), re.M | re.S)
        return [[re.sub(r"  # .*$", "", line) for line in block.splitlines()] for block in blocks]

    assert figures(READMES[0]) == figures(READMES[1])
    assert code(READMES[0]) == code(READMES[1])


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    folder = (ROOT / page).parent
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", text(page))
    assert [link for link in links if not (folder / link).exists()] == []


def commands(page: str) -> Iterator[tuple[str, list[str]]]:
    """Each `ms-ocr ...` of a page, to the end of its line or quotation, and its words."""
    joined = re.sub(r"\\\n\s*", "", text(page))
    for found in re.finditer(r"(?<![\w/-])ms-ocr[ \t]+(?!ms-ocr)(?=[a-z])([^`|\n#>\"')}]*)", joined):
        yield found[0], [word.strip("[].,;:") for word in found[1].split()]


@pytest.mark.parametrize("page", MANUALS)
def test_commands_and_options_are_there(page):
    for shown, words in commands(page):
        command: click.Command = main
        while isinstance(command, click.Group) and words and words[0] != "--help":
            command = command.get_command(click.Context(command), words.pop(0))
            assert command, f"{page}: {shown}"
        known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "--version"}
        options = {word.partition("=")[0] for word in words if re.match(r"--\w", word)}
        assert options <= known, f"{page}: {shown}: no {', '.join(options - known)}"


def test_the_commands_of_a_page_are_found():
    """The test's own oracle: what stands in one page, read by eye."""
    found = [shown for shown, _ in commands("docs/decode.md")]
    assert "ms-ocr recognize forms/ --allowed 0123456789" in found and len(found) > 5
