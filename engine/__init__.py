"""Observe, judge, policy, registry and clock: the whole product as functions, without Kafka."""
