"""What the pages name is there, and what names a page or a section of one finds it."""

import ast
import re

import pytest

from tools.__main__ import COMMANDS
from tools.toolchain import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
FOLDERS = ("ota", "tools", "tests", "unix_port_tests")
CODE = [
    *(ROOT / name for name in ("boot.py", "main.py", "Makefile")),
    *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py"))),
]
NAMED = re.compile(r'docs/(\w+)\.md((?:,? (?:and )?"[^"]+")*)')  # docs/a.md, "B" and "C"
NAMED_BEFORE = re.compile(r'((?:"[^"]+",? (?:and )?)+)[\w ]*\bin docs/(\w+)\.md')
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")


def sections(page):
    return re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)


def anchors(page):
    return [re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in sections(page)]


def ids(path):
    return str(path.relative_to(ROOT))


def references():
    """(file, page, section or "") for all that code says about docs/."""
    for path in CODE:
        if path.name == "test_docs.py":
            continue
        text = re.sub(r"\s*\n[ #]*", " ", path.read_text())
        for name, quoted in NAMED.findall(text):
            for section in re.findall(r'"([A-Z][^"]+)"', quoted) or [""]:
                yield path, name, section
        for quoted, name in NAMED_BEFORE.findall(text):
            for section in re.findall(r'"([A-Z][^"]+)"', quoted):
                yield path, name, section


def test_code_points_to_pages_and_sections_that_exist():
    found = list(references())
    assert len([section for *_, section in found if section]) >= 10
    for path, name, section in found:
        page = ROOT / "docs" / f"{name}.md"
        assert page.exists(), f"{ids(path)}: no page {page.name}"
        assert not section or section in sections(page), f"{ids(path)}: no {section} in {name}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page):
    for target, anchor in LINK.findall(page.read_text()):
        if target.startswith("http"):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_and_targets_exist(page):
    text = page.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^ +|`)make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for name in re.findall(r"-m tools ([a-z]+)", text):
        assert name in COMMANDS


def agent_class():
    tree = ast.parse((ROOT / "ota" / "agent.py").read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    return next(node for node in classes if node.name == "OTA")


def test_readme_has_the_settings_as_they_are():
    text = (ROOT / "README.md").read_text()
    table = text.partition("| setting | default")[2].partition("\n\n")[0]
    told = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", table, re.MULTILINE))
    values = {
        target.id: str(node.value.value)
        for node in agent_class().body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
    }
    assert len(told) == 9
    assert told == {name: values[name] for name in told}


def test_readme_has_calls_that_exist():
    text = (ROOT / "README.md").read_text()
    # Methods of the agent, and the functions that become some when they are called.
    nodes = agent_class().body + ast.parse((ROOT / "ota" / "calls.py").read_text()).body
    methods = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    called = set(re.findall(r"agent\.(\w+)\(", text))
    assert len(called) >= 9
    assert called <= methods
