"""From bytes to tokens and back: sources, segments, tokenizer, conversation."""
