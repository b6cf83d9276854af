"""Conversion of a pretrained decoder to an AllMem checkpoint."""
