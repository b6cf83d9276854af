"""Which key/value heads carry far recall, and what window each is given within a budget."""
