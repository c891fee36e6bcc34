"""The Kafka side: Faust workers that observe and judge, and lose nothing. The only folder that imports faust."""
