"""Patterns learned on the model that runs: which layers are full on which steps, by what that does to final latents."""
