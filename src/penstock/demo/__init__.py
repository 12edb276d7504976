"""``penstock demo``: the main job, the plain way and through penstock, side by side."""
