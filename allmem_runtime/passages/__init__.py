"""The read text on disk, and the passages of it that a question needs."""
