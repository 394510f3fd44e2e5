"""What the start page says of the claims, and how it asks to be cited."""

import pytest

from hodor.errors import HodorError
from hodor.provenance import write_json_atomic
from hodor.reporting.citation import bibtex, sentence
from hodor.reporting.verdict_page import VERDICTS, read_claims, verdicts_html


def test_each_verdict_is_told_in_words_with_effect_interval_and_reason(tmp_path):
    claim = {"claim": "c", "effect": -1.25, "interval": [-3.0, 0.5], "probability": 0.125, "sequences": 30, "seeds": 1}
    claim |= {"benchmark": "davis2017-val", "metric": "J&F", "rows": ["a", "b"], "evidence": "made up"}
    claims = [claim | {"verdict": verdict, "reason": f"because {verdict}"} for verdict in VERDICTS]
    nothing = {"effect": None, "interval": None, "probability": None, "sequences": 0, "seeds": 0}
    claims[-1] |= nothing
    claims.append(claims[-1] | {"benchmark": "ytvos2019-val", "metric": "G"})
    write_json_atomic(
        tmp_path / "claims.json", {"statement": "s", "seeds": [0, 1], "resamples": 10_000, "claims": claims}
    )
    html = verdicts_html(read_claims(tmp_path), "mini")
    for verdict, (sign, _) in VERDICTS.items():
        assert f"{sign} {verdict}</span>" in html and f"because {verdict}" in html
    numbers = (
        "on DAVIS-2017 val (J&amp;F): effect −1.2 points; 95 % interval −3.0 to +0.5; better in 12 % of the resamples"
    )
    assert html.count(numbers) == 4  # none for what was not run
    assert "30 sequences; 1 seed</p>" in html and "10,000 bootstrap resamples" in html
    # One card for a claim, one line for what was not run, the evidence once.
    assert html.count("<li") == 1 and html.count("rows: a, b") == 1 and html.count("made up") == 1
    assert "not run</span> on DAVIS-2017 val (J&amp;F), YouTube-VOS 2019 val (G): because not run" in html


def test_alphas_have_three_digits_and_no_bootstrap_interval():
    claim = {"claim": "c", "verdict": "supported", "rows": ["a"], "benchmark": None, "metric": "alpha", "seeds": 3}
    html = verdicts_html({"claims": [claim | {"effect": 0.1364, "interval": [0.1004, 0.1724]}]}, "mini")
    assert "supported</span>: effect +0.136; less and plus the spread over seeds +0.100 to +0.172; 3 seeds" in html
    assert "95 %" not in html


def test_evidence_that_differs_stands_with_each_verdict_and_other_rows_make_another_card():
    claim = {"claim": "c", "verdict": "supported", "rows": ["a", "b"], "evidence": "of one kind"}
    other = claim | {"rows": ["a", "c"], "verdict": "contradicted", "evidence": "of another"}
    html = verdicts_html({"claims": [claim, other]}, "mini")
    assert html.count("<li") == 2 and 'class="supported"' in html and 'class="contradicted"' in html
    assert "evidence: of one kind" in html and "evidence: of another" in html
    mixed = verdicts_html({"claims": [claim, claim | {"verdict": "contradicted"}]}, "mini")
    assert 'class="undecided"' in mixed


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
