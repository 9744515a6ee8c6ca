"""Where a batch is kept: its folder, which pictures are finished in it, and shards."""
