"""How to cite: CITATION.cff as sentences and as BibTeX."""

import re
from collections.abc import Mapping

_TYPES = {"conference-paper": "inproceedings", "article": "article", "software": "software"}


def sentence(work: Mapping) -> str:
    """A work of CITATION.cff (Citation File Format 1.2) as a line of a list of references."""
    authors = [_name(author, " ") for author in work.get("authors", [])]
    parts = [", ".join(authors), work.get("title", ""), _venue(work), str(work.get("year", "") or "")]
    if work.get("type") == "software":
        parts.append(f"version {work['version']}" if work.get("version") else "")
    return ". ".join(part.rstrip(".") for part in parts if part) + "."


def bibtex(work: Mapping) -> str:
    """A work as a BibTeX entry, whose key is made of first author, year and the title's first word."""
    fields = {
        "title": "{" + work.get("title", "") + "}",
        "author": " and ".join(_name(author, ", ") for author in work.get("authors", [])),
        "booktitle": _venue(work),
        "year": str(work.get("year", "") or ""),
        "version": str(work.get("version", "") or ""),
        "doi": work.get("doi", ""),
        "url": work.get("url", ""),
    }
    first = work.get("authors", [{}])[0]
    words = [first.get("family-names") or first.get("name", ""), str(work.get("year", "") or "")]
    words.append(next((word for word in re.findall(r"[A-Za-z]+", work.get("title", ""))), ""))
    key = re.sub(r"[^a-z0-9]", "", "".join(words).lower())
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items() if value)
    return f"@{_TYPES.get(work.get('type'), 'misc')}{{{key},\n{lines}\n}}"


def _venue(work: Mapping) -> str:
    return work.get("collection-title") or work.get("journal") or ""


def _name(author: Mapping, between: str) -> str:
    if "family-names" not in author:
        return author.get("name", "")
    names = [author["family-names"], author.get("given-names", "")]
    return between.join(filter(None, names if between == ", " else names[::-1]))
