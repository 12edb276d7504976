"""``penstock bench``: penstock and its peers side by side, round after round, medians of all."""
