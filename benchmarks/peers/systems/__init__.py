"""One module for each system that is measured; each has a class ``System``."""
