"""What the start page says of the claims, and how it asks to be cited."""

import pytest

from hodor.errors import HodorError
from hodor.provenance import write_json_atomic
from hodor.reporting.citation import bibtex, sentence
from hodor.reporting.verdict_page import VERDICTS, read_claims, verdicts_html


def test_each_verdict_is_told_in_words_with_effect_interval_and_reason(tmp_path):
    claim = {"claim": "c", "effect": -1.25, "interval": [-3.0, 0.5], "probability": 0.125, "sequences": 30, "seeds": 3}
    claims = [claim | {"verdict": verdict, "reason": f"because {verdict}"} for verdict in VERDICTS]
    claims[-1] |= {
        "effect": None,
        "interval": None,
        "probability": None,
        "sequences": 0,
        "seeds": 0,
        "rows": ["a", "b"],
    }
    write_json_atomic(
        tmp_path / "claims.json", {"statement": "s", "seeds": [0, 1], "resamples": 10_000, "claims": claims}
    )
    html = verdicts_html(read_claims(tmp_path), "mini")
    for verdict, (sign, _) in VERDICTS.items():
        assert f"{sign} {verdict}</p>" in html and f"because {verdict}" in html
    assert "effect −1.2 points" in html and "95 % interval −3.0 to +0.5" in html and "30 sequences; 3 seeds" in html
    assert html.count("effect −1.2") == 4  # none for what was not run
    assert "10,000 bootstrap resamples" in html and "rows: a, b" in html


def test_broken_verdicts_are_one_error_and_absent_ones_are_told(tmp_path):
    assert read_claims(tmp_path) is None and "results/mini/claims.json" in verdicts_html(None, "mini")
    write_json_atomic(tmp_path / "claims.json", {"claims": [{"verdict": "proved"}]})
    with pytest.raises(HodorError, match="claims.json.*supported"):
        read_claims(tmp_path)


def test_a_work_as_a_sentence_and_as_bibtex():
    authors = [{"family-names": "Doe", "given-names": "Jane"}, {"name": "The others"}]
    work = {"type": "article", "title": "On masks", "authors": authors, "year": 2022, "journal": "J. of Masks"}
    assert sentence(work) == "Jane Doe, The others. On masks. J. of Masks. 2022."
    assert bibtex(work).startswith(
        "@article{doe2022on,\n  title = {{On masks}},\n  author = {Doe, Jane and The others}"
    )
