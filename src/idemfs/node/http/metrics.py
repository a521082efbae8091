"""``/metrics`` for Prometheus: looked up when asked for, in units and names as its rules have them.

Sizes are bytes, times seconds. What goes on growing ends in ``_total``; an age is told by the time since which it
grows, ``…_timestamp_seconds``, so that it is right at any scrape. Stores and links are labels.

Threads: of the pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from fastapi import Response
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from idemfs.format.role import Role
from idemfs.node import certificates, progress
from idemfs.node.http import answers
from idemfs.node.http.api import Api
from idemfs.node.http.commit_times import COMMIT_TIMES, CommitTimes
from idemfs.node.http.gate import METRICS
from idemfs.node.keys import Keys
from idemfs.node.node import Node
from idemfs.node.owner import OwnedStore
from idemfs.node.tokens import Scope
from idemfs.snapshots import diverged, usage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GAUGES: dict[str, str] = {
    "epoch": "epoch in which the store got its role",
    "seen_epoch": "highest epoch that the store has heard of; above its own on a primary: it was taken over",
    "ready": "1 if the store is open and nothing keeps parts of it from their work",
    "takes_changes": "1 if users can write to the store",
    "data_bytes": "room that blocks take on the host",
    "metadata_bytes": "room that records take on the host",
    "free_bytes": "room that the host has left for the store",
    "active_bytes": "what the active file systems of all filesets take",
    "snapshot_bytes": "what the snapshots of all filesets own",
    "snapshots": "snapshots of all filesets",
    "diverged_snapshots": "snapshots that keep what only an old primary had, until somebody releases them",
    "newest_snapshot_timestamp_seconds": "when the newest snapshot of the root fileset was taken; "
    "on a standby the one that it shows",
    "current_timestamp_seconds": "of a standby: until when it has everything that its primary had",
}


class Metrics:
    """The route, and what it answers."""

    def __init__(self, node: Node, keys: Keys) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(node, keys))
        ProcessCollector(registry=self._registry)

    def add_to(self, api: Api) -> None:
        api.add("GET", METRICS, self.metrics, scope=Scope.READ, answers=str, media="text/plain")

    def metrics(self) -> Response:
        """Figures for Prometheus.

        Without authentication if the configuration says `metrics = "open"`.
        """
        return Response(generate_latest(self._registry), headers={"content-type": CONTENT_TYPE})


class NodeCollector(Collector):
    """Looks at a node when it is asked."""

    def __init__(self, node: Node, keys: Keys) -> None:
        self._node = node
        self._keys = keys

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("idemfs_build", "what runs", {"version": version("idemfs")})
        yield GaugeMetricFamily(
            "idemfs_certificate_expiry_timestamp_seconds",
            "when the certificate of the node's connections expires",
            certificates.expires_ns(self._keys.certificate()) / 1e9,
        )
        yield GaugeMetricFamily("idemfs_peers", "nodes that this one is paired with", len(self._keys.peers()))
        yield from self._store_metrics()
        yield from self._link_metrics()

    # -- stores ----------------------------------------------------------------------------------------

    def _store_metrics(self) -> Iterator[Metric]:
        gauges = {
            name: GaugeMetricFamily(f"idemfs_store_{name}", text, labels=["store"]) for name, text in _GAUGES.items()
        }
        roles = GaugeMetricFamily("idemfs_store_role", "1 for the role that the store has", labels=["store", "role"])
        commits = HistogramMetricFamily(
            "idemfs_group_commit_seconds", "how long transaction groups take to become durable", labels=["store"]
        )
        troubled = {store.name for store in self._node.status().stores if store.problems}
        owned = {store.name: store for store in self._node.stores()}
        for config in self._node.config.stores:
            store = owned.get(config.name)
            figures = {"ready": float(config.name not in troubled)}
            if store is not None:
                figures |= _figures(store)
                for role in Role:
                    roles.add_metric([store.name, role.name.lower()], float(store.tree.role.role is role))
                times = store.parts.get(COMMIT_TIMES)
                if isinstance(times, CommitTimes):
                    buckets, seconds = times.buckets()
                    commits.add_metric([store.name], buckets, seconds)
            for name, figure in figures.items():
                gauges[name].add_metric([config.name], figure)
        yield from [*gauges.values(), roles, commits]

    # -- links -----------------------------------------------------------------------------------------

    def _link_metrics(self) -> Iterator[Metric]:
        labels = ["store", "link"]
        lag_seconds = GaugeMetricFamily(
            "idemfs_link_lag_seconds",
            "how far the other side of the link is behind: time since it had all that was written here",
            labels=labels,
        )
        lag_bytes = GaugeMetricFamily(
            "idemfs_link_lag_bytes", "what the other side of the link lacks of the snapshots here", labels=labels
        )
        states = GaugeMetricFamily(
            "idemfs_link_state", "1 for the state that the link is in", labels=[*labels, "state"]
        )
        sent = CounterMetricFamily("idemfs_link_sent_bytes", "bytes of change sets that were sent", labels=labels)
        transfers = CounterMetricFamily("idemfs_link_transfers", "change sets that were sent whole", labels=labels)
        failures = GaugeMetricFamily("idemfs_link_failures", "failures in a row, until one works", labels=labels)
        for store in self._node.stores():
            for link in store.links:
                place = [store.name, link.to]
                for state in progress.STATES:
                    states.add_metric([*place, state], float(link.state == state))
                if link.lag_seconds is not None:
                    lag_seconds.add_metric(place, link.lag_seconds)
                if link.lag_bytes is not None:
                    lag_bytes.add_metric(place, link.lag_bytes)
                sent.add_metric(place, link.sent_bytes)
                transfers.add_metric(place, link.sent_count)
                failures.add_metric(place, link.failure_count)
        yield from [lag_seconds, lag_bytes, states, sent, transfers, failures]


def _figures(owned: OwnedStore) -> dict[str, float]:
    """By the names of ``_GAUGES``; those that mean nothing now are left out."""
    tree, store = owned.tree, owned.tree.store
    newest = answers.newest(tree)
    with store.lock:
        filesets = store.catalog.listed_filesets()
        snapshots = [each for fileset in filesets for each in store.catalog.snapshots(fileset.number)]
        kept = [each for fileset in filesets for each in store.catalog.all_snapshots(fileset.number)]
        unreleased = len(diverged.unreleased(store))
        active = sum(usage.active_bytes(store, fileset) for fileset in filesets)
    figures: dict[str, float] = {
        "epoch": tree.role.epoch,
        "seen_epoch": tree.role.seen_epoch,
        "takes_changes": answers.takes_changes(tree),
        "data_bytes": store.blocks.used_bytes(),
        "metadata_bytes": store.kv.used_bytes(),
        "free_bytes": store.blocks.free_bytes(),
        "active_bytes": active,
        "snapshot_bytes": sum(each.owned_bytes for each in kept),
        "snapshots": len(snapshots),
        "diverged_snapshots": unreleased,
    }
    now_ns = store.clock.now_ns()
    lag = answers.lag_seconds(tree, now_ns) if tree.role.role is Role.STANDBY else None
    if lag is not None:
        figures["current_timestamp_seconds"] = now_ns / 1e9 - lag
    if newest is not None:
        figures["newest_snapshot_timestamp_seconds"] = newest.created_ns / 1e9
    return figures
