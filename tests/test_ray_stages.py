"""Every stage that spreads its work, in the smoke profile: on two Ray nodes and in one process."""

import shutil

import pytest
import yaml

from working_copy import WorkingCopy

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
PREPARED = [
    *(("langsae.stages.corpus", name) for name in
      ("udhr_train", "udhr", "help_pairs", "lape", "lape_test")),
    ("langsae.stages.model", "tiny"),
    ("langsae.stages.saes", "tiny"),
]  # fmt: skip
STUDIES = {
    "flores_exploration": ("collect",),
    "bilingual_score": ("collect", "rank", "trace"),
    "sae_lape": ("collect", "identify", "compare", "classify", "perplexity", "generate",
                 "interpret"),
}  # fmt: skip
STAGES = [
    (f"replications.{study}.{stage}", "tiny")
    for study, stages in STUDIES.items()
    for stage in stages
]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_stage_gives_the_same_bytes_on_ray(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    copy = WorkingCopy.make(tmp_path / "copy")
    copy.run("langsae", "profile", "smoke")
    copy.modules(*((".", *stage) for stage in (*PREPARED, *STAGES)))
    local = copy.tree("artifacts")
    for study in STUDIES:
        assert any(f"/{study}/" in path for path in local)
        shutil.rmtree(copy.root / "artifacts" / study)
    shutil.rmtree(copy.root / "scratch")
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        cluster.add_node(**NODE)
        path = copy.root / "params.yaml"
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
        params |= {"launch": "ray", "ray": {"address": cluster.address, "cpus": 1, "shards": 3}}
        path.write_text(yaml.safe_dump(params), encoding="utf-8")
        copy.modules(*((".", *stage) for stage in STAGES))
    finally:
        cluster.shutdown()
    assert copy.tree("artifacts") == local
