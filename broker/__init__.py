"""How Kafka is reached, without any worker: settings, topics, what its errors mean, and a real broker for one machine."""
