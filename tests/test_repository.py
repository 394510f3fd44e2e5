"""Documents, continuous integration and versions name what the repository holds."""

import re
import shlex
import sys

import pytest
import yaml
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser

from hodor import __version__
from hodor.cli.main import _parser


def _anchors(text: str) -> set[str]:
    """Anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere_and_every_page_is_linked(root):
    pages = [
        *root.glob("*.md"),
        *(root / "docs").glob("*.md"),
        root / "config/README.md",
        root / "benchmarks/README.md",
    ]
    texts = {page.resolve(): page.read_text(encoding="utf-8") for page in pages}
    linked, broken = set(), []
    for page, text in texts.items():
        for link in re.findall(r"\]\(([^()\s]+)\)", text):
            if link.startswith("http"):
                continue
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page
            linked.add(target)
            if not target.exists() or anchor and anchor not in _anchors(texts[target]):
                broken.append(f"{page.relative_to(root)}: {link}")
        folders = "benchmarks|config|docs|examples|hodor|profiles|tests|workflow"
        named = re.findall(rf"`((?:{folders})/[\w./*-]+)`", text)
        for file in named if page.name != "CHANGELOG.md" else ():
            if (
                not list(root.glob(file.rstrip("/"))) and file != "config/locks/official.json"
            ):  # the first `fetch` writes it
                broken.append(f"{page.relative_to(root)}: {file}")
    assert broken == []
    assert {page for page in texts if page.parent.name == "docs"} <= linked


def _nav(entries: list) -> list[str]:
    return [page for entry in entries for page in ([entry] if isinstance(entry, str) else _nav(*entry.values()))]


def test_the_site_has_every_page_once(root):
    site = yaml.safe_load((root / "mkdocs.yml").read_text())
    pages = _nav(site["nav"])
    documents = {f"docs/{page.name}" for page in (root / "docs").glob("*.md")}
    assert len(pages) == len(set(pages)) and documents == {page for page in pages if page.startswith("docs/")}
    assert all((root / page).is_file() for page in [*pages, *site["extra"]["polyfills"]])


PROGRAMS = "(?:hodor|python|make|snakemake|dvc)"


def commands(root, *, inline: bool = False) -> list[tuple[str, list[str]]]:
    """Page and words of every command in the blocks of the documents, without comments; `inline`: in their sentences."""
    found = []
    pages = [root / name for name in ("README.md", "CONTRIBUTING.md", "config/README.md", "benchmarks/README.md")]
    for page in [*pages, *sorted((root / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        lines = [
            line
            for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
            for line in re.findall(rf"^{PROGRAMS} .*", block.replace("\\\n", " "), re.MULTILINE)
        ]
        if inline:
            sentences = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL).replace("\n", " ")
            lines = [line for line in re.findall(rf"`({PROGRAMS} [^`]*)`", sentences) if "..." not in line]
        for line in lines:
            found += [(str(page.relative_to(root)), shlex.split(part, comments=True)) for part in line.split("&&")]
    return found


def test_commands_of_the_documents_exist_with_their_options(root, capsys, monkeypatch):
    """Those of Snakemake are dry runs in tests/workflow/test_documents.py, which runs those of the tutorials, too."""
    monkeypatch.setattr(sys, "argv", ["dvc"])  # which its parser reads
    parsers, wrong, verbs = {"hodor": _parser(), "dvc": get_main_parser()}, [], set()
    for page, words in [*commands(root), *commands(root, inline=True)]:
        match words:
            case ["hodor" | "dvc" as program, *arguments]:
                verbs.add(" ".join(words[:2]))
                try:
                    parsers[program].parse_args(["2" if word == "N" else word for word in arguments])
                except (SystemExit, DvcParserError) as end:
                    error = f"{capsys.readouterr().err} {end}"
                    if "--help" not in words and "arguments are required" not in error:  # a verb in a sentence
                        wrong.append(f"{page}: {shlex.join(words)}: {error}")
            case ["python", script, *arguments] if script.endswith(".py"):
                code = (root / script).read_text(encoding="utf-8")
                options = [word.strip("[]") for word in arguments if word.strip("[]").startswith("--")]
                shared = re.findall(r"\b(\w+)=", "".join(re.findall(r"script_parser\((.*)\)$", code, re.MULTILINE)))
                known = {*re.findall(r'"(--[\w-]+)"', code), *(f"--{name}" for name in shared)}
                wrong += [f"{page}: {script}: {option}" for option in options if option not in known]
            case ["make", target, *_]:
                if f"\n{target}:" not in (root / "Makefile").read_text():
                    wrong.append(f"{page}: make {target}")
    assert wrong == []
    assert {
        "hodor score",
        "hodor track",
        "hodor fetch",
        "hodor doctor",
        "hodor cost",
        "hodor convert",
        "dvc push",
    } <= verbs


@pytest.mark.parametrize("name", ["ci", "reproduce"])
def test_continuous_integration_calls_targets_of_the_makefile(root, name):
    jobs = yaml.safe_load((root / ".github" / "workflows" / f"{name}.yml").read_text())["jobs"]
    called = {step["run"] for job in jobs.values() for step in job["steps"] if step.get("run", "").startswith("make")}
    targets = {
        f"make {target}" for target in re.findall(r"^([a-z-]+):.*##", (root / "Makefile").read_text(), re.MULTILINE)
    }
    assert called <= targets
    assert called == (
        {"make reproduce"} if name == "reproduce" else {"make lint", "make test", "make docs", "make dist"}
    )


def test_one_version_everywhere(root):
    assert yaml.safe_load((root / "CITATION.cff").read_text())["version"] == __version__
    released = re.findall(r"^## (\S+)", (root / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[:2] == ["Unreleased", __version__]
