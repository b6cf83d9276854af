"""Documents that are no plain text: PDF, books, pages, letters and archives, as text with places.

Each kind has a small file of its own, ``kinds`` is the table of them, and all are read in a process
of their own (``child``), whose words ``extraction`` takes down.
"""
