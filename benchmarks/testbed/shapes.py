"""Prompts of captioned shapes; the scenes themselves ship with the embedded model."""

from ditstack_adapters.model.embedded.shapes import seen_prompts, unseen_prompts

__all__ = ["seen_prompts", "unseen_prompts"]
