"""A flood of 250 sources at an even rate, until it is ended: `python -m benchmarks.load BOOTSTRAP TOPIC PER_SECOND ENVELOPE`.

A process of its own, so that what it needs does not delay those who measure.
"""

from __future__ import annotations

import sys
import time

from confluent_kafka import Producer

STEPS_PER_S = 100
CLIENTS = 250


def request_line(address: str) -> bytes:
    """A request that was completed now."""
    moment = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    return f'{address} - - [{moment}] "GET /v1/models HTTP/1.1" 200 512 "-" "bench/1.0"'.encode()


def send(bootstrap: str, topic: str, per_second: int, envelope: int) -> None:
    """Send for ever, ``envelope`` events in a message; what the machine has no time for is sent late."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 2, "queue.buffering.max.messages": 2_000_000})
    messages, sent, began = max(1, per_second // STEPS_PER_S // envelope), 0, time.perf_counter()
    while True:
        line = request_line(f"198.51.100.{sent // (messages * envelope) % CLIENTS}")
        producer.produce_batch(topic, [{"value": b"\n".join([line] * envelope)}] * messages, partition=0)
        sent += messages * envelope
        producer.poll(0)
        time.sleep(max(0.0, began + sent / per_second - time.perf_counter()))


if __name__ == "__main__":
    send(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
