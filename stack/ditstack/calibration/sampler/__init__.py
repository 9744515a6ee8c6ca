"""A sampler of few evaluations fitted to the pipe that runs: where it starts, and two ways down from there."""
