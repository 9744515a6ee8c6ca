"""A small text-to-image task with an objective checker: captioned shapes."""
