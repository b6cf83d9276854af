"""Measurements that anyone can repeat with one command each; see docs/speed.md."""
