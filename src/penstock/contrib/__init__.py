"""Penstock below libraries that others wrote; each module needs the extra of its name."""
