"""Measuring what a model remembers, through the same runtime that serves it."""
