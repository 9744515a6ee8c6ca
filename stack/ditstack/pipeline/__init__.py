"""Pipeline: the user's diffusers pipeline, read: its transformers, blocks and clock, and how each pass runs."""
