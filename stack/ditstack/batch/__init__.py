"""Many prompts on many devices with Lightning: one picture of every row, whatever happens in between."""
