"""The table `config/datasets.csv`: every source of every row, and what each line must hold."""

import os
import re

import pytest

from hodor.config import datasets as sources
from hodor.config.loading import load
from tests.refused import refused

OFFICIAL = set(sources.SOURCES) - {"coco-persons-small"}


@pytest.fixture(scope="module")
def table(root):
    return sources.read_table(root / "config" / "datasets.csv")


def test_every_source_has_terms_licence_and_citation(table):
    for source in table:
        assert source.licence and source.version and source.citation, source
        assert source.terms.startswith("https://"), source
        assert re.search(r"(19|20)\d\d|arXiv:", source.citation), f"{source.citation}: no year"
        assert source.archive == os.path.basename(source.archive) and source.archive.endswith(
            (".zip", ".tar", ".tgz", ".pth")
        )


def test_official_sources_have_safe_addresses(table):
    official = [source for source in table if source.edition == "official"]
    for source in official:
        # Without TLS only a checksum shows that the file is the publisher's.
        assert source.address.startswith("https://") or source.sha256, source
        file = source.address.partition("#")[0].partition("?")[0]
        direct = file.endswith((".zip", ".pth") if source.dataset == "hodor-released" else source.archive)
        assert direct or source.log_in, f"{source.address}: no address of a file, so a person must follow it"
        assert source.sha256 is None or len(source.sha256) == 64
    assert all(source.address is None and not source.log_in for source in table if source.edition == "subset")
    assert {source.dataset for source in official} == OFFICIAL


def test_every_source_of_scale_paper_is_in_the_table(root, table):
    assert set(load(root / "config", {"scale": "paper"}).scale.datasets) <= OFFICIAL
    for dataset in OFFICIAL:
        listed = sources.archives(root / "config" / "datasets.csv", dataset, "official")
        assert [entry["archive"] for entry in listed] == list(sources.SOURCES[dataset])


def test_only_youtube_vos_and_drives_need_a_person(table):
    by_hand = {source.dataset for source in table if source.edition == "official" and source.log_in}
    youtube = {name for name in sources.SOURCES if name.startswith("youtube-vos")}
    assert by_hand == youtube | {"stcn-static", "fss-1000", "hrsod", "big"}


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("log_in,note", "login,note", "the columns must be"),
        ("davis,subset", "davos,subset", r"line \d+: dataset: 'davos' is none of.*nearest: davis"),
        ("davis,subset,", "davis,mine,", r"line \d+: edition 'mine'"),
        ("http://images", "images", "line 2: address"),
        ("19336861798", "19 GB", "line 2: size"),
        ("69a8bb58", "zz", "line 2: sha256"),
        ("0cb3cf9c", "zz", r"line \d+: md5"),
        (",no,,Lin", ",maybe,,Lin", "line 2: log_in"),
        (",no,,Lin et al.: Microsoft COCO: Common Objects in Context. ECCV 2014\n", "\n", "line 2: 13 cells"),
        ("official,2017,val2017.zip", "official,2017,train2017.zip", "coco official train2017.zip is listed twice"),
        ("official,2017,val2017.zip", "official,2017,val.zip", "coco official must list exactly"),
    ],
)
def test_faults_in_the_table_name_the_line(root, tmp_path, old, new, message):
    text = (root / "config" / "datasets.csv").read_text()
    assert old in text
    (tmp_path / "datasets.csv").write_text(text.replace(old, new, 1))
    refused(rf"datasets\.csv.*{message}", sources.read_table, tmp_path / "datasets.csv")
