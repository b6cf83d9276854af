"""From a pretrained decoder to an AllMem checkpoint."""
