"""Models whose memory is disabled or frozen, to compare with."""
