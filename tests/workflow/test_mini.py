"""Scale mini, as `make reproduce` runs it: learning shows."""

import pytest

TABLES = [f"results/{table}_table.csv" for table in ("ablation", "comparison", "extended")]
TARGETS = [*TABLES, "results/costs.csv", "results/claims.json", "reports/index.html"]


@pytest.mark.long
def test_every_trained_row_beats_copying_and_its_untrained_network(fresh):
    checkout = fresh()
    checkout.set("config", "scale", "mini")
    checkout.snakemake(*TARGETS)
    score = {}
    for table in ("ablation", "extended"):
        for line in checkout.table(f"results/{table}_table.csv"):
            if line["benchmark"] == "davis2017-val" and line["J&F"] != "not run":
                score[line["row"]] = float(line["J&F"])
    for attention in ("none", "hard", "soft"):
        for stage in ("coco", "cyclic"):
            ours = score[f"hodor-{attention}-{stage}"]
            assert ours >= score["copy-first-mask"] + 15
            assert ours >= score[f"hodor-{attention}-untrained"] + 10
    for line in checkout.table("results/comparison_table.csv"):
        assert float(line["davis2017-val_J&F"]) >= score["copy-first-mask"] + 10, line["row"]
        assert line["davis2017-test-dev_J&F"] != "not run"
    assert checkout.due("--", *TARGETS) == {}
