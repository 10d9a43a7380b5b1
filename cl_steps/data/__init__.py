"""Assets on disk: landing formats, validation, duplicates, Parquet shards, replay buffer."""
