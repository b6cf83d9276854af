"""Tiny random decoders of every family that is known to convert."""
