"""``dit compress`` and ``dit decompress``: images to small files and back."""
