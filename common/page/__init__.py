"""The page in the browser: what the ``dashboard`` stage serves."""
