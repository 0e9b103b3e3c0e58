"""The Kafka connector: topics as events, in order per partition, with positions that live in Postgres."""

from connectors.kafka.source import KafkaSource

__all__ = ["KafkaSource"]
