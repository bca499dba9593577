"""The health document as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "agent_brain_postgres_"
STATES = ("none", "building", "ready", "invalid")
STATUSES = ("healthy", "degraded", "unhealthy")


class HealthCollector(Collector):
    """One document, and the pool's counters, as metric families."""

    def __init__(self, document: Mapping[str, Any], stats: Mapping[str, int]) -> None:
        self._document = document
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """Give the families; what could not be asked is left out."""
        document = self._document
        database, store, index = document["database"], document["store"], document["index"]
        yield _gauge("up", "Whether the database answers (1) or not (0).", _up(document))
        yield _states("status", "The backend's status.", STATUSES, document["status"])
        yield from self._pool()
        yield _information(database)
        yield from _known(
            _gauge("read_only", "Whether the database refuses writes.", database["read_only"]),
            _gauge("chunks", "Chunks stored.", store["chunks"]),
            _gauge("store_size_bytes", "Size of tables and indexes.", store["size_bytes"]),
            _gauge("index_progress_ratio", "Progress of the index build.", index["progress"]),
        )
        yield _states("index_state", "State of the vector index.", STATES, index["state"])

    def _pool(self) -> Iterator[Metric]:
        pool, stats = self._document["pool"], self._stats
        connections = GaugeMetricFamily(
            f"{PREFIX}pool_connections", "Connections of the pool.", labels=["state"]
        )
        for state in ("active", "idle"):
            connections.add_metric([state], pool[state])
        yield connections
        yield _gauge("pool_connections_max", "Most connections of the pool.", pool["max"])
        yield _gauge("pool_connections_min", "Connections the pool keeps open.", pool["min"])
        yield _gauge("pool_requests_waiting", "Requests waiting for a connection.", pool["waiting"])
        for name, text, key, scale in _COUNTERS:
            value = stats.get(key, 0) / scale
            yield CounterMetricFamily(f"{PREFIX}pool_{name}", text, value=value)


_COUNTERS = (
    ("requests", "Connections asked of the pool.", "requests_num", 1),
    ("requests_queued", "Requests that had to wait.", "requests_queued", 1),
    ("requests_wait_seconds", "Time that requests waited.", "requests_wait_ms", 1000),
    ("request_errors", "Requests that got no connection.", "requests_errors", 1),
    ("usage_seconds", "Time that connections were in use.", "usage_ms", 1000),
    ("connections_opened", "Connection attempts.", "connections_num", 1),
    ("connection_errors", "Connection attempts that failed.", "connections_errors", 1),
    ("connections_lost", "Connections found dead.", "connections_lost", 1),
)


def _up(document: Mapping[str, Any]) -> bool:
    return bool(document["status"] != "unhealthy")


def _gauge(name: str, text: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text)
    if value is not None:
        family.add_metric([], float(value))
    return family


def _known(*families: Metric) -> Iterator[Metric]:
    return (family for family in families if family.samples)


def _states(name: str, text: str, states: tuple[str, ...], current: str | None) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=["state"])
    for state in states:
        family.add_metric([state], float(state == current))
    return family


def _information(database: Mapping[str, Any]) -> Metric:
    labels = ["server_version", "pgvector_version"]
    family = GaugeMetricFamily(f"{PREFIX}database_info", "Versions in use.", labels=labels)
    family.add_metric([database[label] or "" for label in labels], 1)
    return family
