"""What Prometheus is told: right figures, in names and units that its own checker accepts."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from idemfs.node.http.commit_times import BOUNDS, CommitTimes
from idemfs.node.tokens import Scope
from idemfs.snapshots import diverged
from idemfs.store.files import open_files
from idemfs.testing.clock import Simulated
from tests.tidy.source import ROOT
from tests.unit.node.http.running import Running, config_of, make_store, running

ALERTS = ROOT / "docs" / "alerts.yml"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here (Debian: prometheus)")


@pytest.fixture
def a(tmp_path: Path) -> Iterator[Running]:
    make_store(tmp_path, "a")
    with running(config_of(tmp_path, "a")) as node:
        yield node


def scraped(node: Running) -> dict[tuple[str, ...], float]:
    """By the name and the values of labels."""
    answer = node.ask("/metrics", token=node.token(Scope.READ))
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def test_the_figures_are_those_of_the_stores(a: Running) -> None:
    before = scraped(a)
    assert ("idemfs_store_newest_snapshot_timestamp_seconds", "data") not in before
    for name in ("one", "link-2"):
        assert (
            a.ask(
                "/v1/stores/data/snapshots",
                "POST",
                token=a.token(Scope.ADMIN),
                body=f'{{"names": ["{name}"]}}'.encode(),
            ).status
            == 201
        )
    tree = a.node.stores()[0].tree
    newest = tree.store.catalog.newest(tree.fileset)
    assert newest is not None
    # Whatever its name is.
    diverged.put(tree.store, newest, diverged.Mark(1))
    tree.store.commit()
    figures = scraped(a)
    said = a.ask("/v1/stores/data", token=a.token(Scope.READ)).said
    assert said["diverged_snapshots"] == ["link-2"]
    for name, value in {
        "epoch": 1,
        "seen_epoch": 1,
        "ready": 1,
        "takes_changes": 1,
        "snapshots": 2,
        "diverged_snapshots": 1,
        "newest_snapshot_timestamp_seconds": pytest.approx(newest.created_ns / 1e9),
        "metadata_bytes": tree.store.kv.used_bytes(),
    }.items():
        assert figures["idemfs_store_" + name, "data"] == value, name
    assert [figures["idemfs_store_role", role, "data"] for role in ("primary", "standby", "fenced")] == [1, 0, 0]
    commits = ("idemfs_group_commit_seconds_count", "data")
    assert figures[commits] > before[commits]
    assert figures["idemfs_certificate_expiry_timestamp_seconds",] > 1.7e9


def test_a_store_that_is_not_open_is_not_ready(tmp_path: Path) -> None:
    store = make_store(tmp_path, "a")
    config = config_of(tmp_path, "a")
    (store / "superblock").write_bytes(b"damaged")
    with running(config) as node:
        figures = scraped(node)
        assert figures["idemfs_store_ready", "data"] == 0
        assert ("idemfs_store_epoch", "data") not in figures
        assert node.ask("/ready").status == node.ask("/v1/stores/data/primary").status == 503
        assert node.ask("/v1/stores/data", token=node.token(Scope.ADMIN)).status == 503


def test_groups_are_counted_by_how_long_they_took(tmp_path: Path) -> None:
    store = open_files(str(make_store(tmp_path, "a")), background=False, clock=Simulated())
    times = CommitTimes(store)
    times.start()
    for told in store.after_commit:
        for seconds in (0.0005, 0.001, 0.3, 100.0):
            told(seconds)
    buckets, seconds = times.buckets()
    assert seconds == pytest.approx(100.3015)
    assert [buckets[0], buckets[7], buckets[8], buckets[-1]] == [
        ("0.001", 2.0),
        (str(BOUNDS[7]), 2.0),
        (str(BOUNDS[8]), 3.0),
        ("+Inf", 4.0),
    ]
    with store.lock:
        store.admit(1, 100)
        store.small.put(b"Z", b"1")
    store.commit()
    assert times.buckets()[0][-1] == ("+Inf", 5.0)
    times.close()
    assert store.after_commit == []
    store.close()


@needs_promtool
def test_prometheus_finds_nothing_to_object_to(a: Running) -> None:
    text = a.ask("/metrics", token=a.token(Scope.READ)).body
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


@needs_promtool
def test_prometheus_accepts_the_alert_rules() -> None:
    checked = subprocess.run(["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0 and "SUCCESS" in checked.stdout, checked.stdout + checked.stderr


def test_the_rules_use_metrics_that_there_are(a: Running) -> None:
    text = a.ask("/metrics", token=a.token(Scope.READ)).body.decode()
    told = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))
    used = set(re.findall(r"idemfs_\w+", "\n".join(re.findall(r"expr: (.*)", ALERTS.read_text()))))
    assert len(used) > 8
    assert {name.removesuffix("_bucket") for name in used} <= told


def test_the_document_lists_every_metric(a: Running) -> None:
    text = a.ask("/metrics", token=a.token(Scope.READ)).body.decode()
    told = {name for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE) if name.startswith("idemfs_")}
    listed = set(re.findall(r"^\| `(idemfs_\w+)`", (ROOT / "docs" / "MONITORING.md").read_text(), re.MULTILINE))
    assert listed == told
