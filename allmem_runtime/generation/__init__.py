"""Choosing tokens and knowing when to stop; pure functions of logits and text."""
