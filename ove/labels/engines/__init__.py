"""Who runs the offline steps: `jobs` what a step does to one shard, `run` all shards of a step here, `cluster` elsewhere."""
