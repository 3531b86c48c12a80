"""How a scene's layout becomes pixels: polygons, the things made of them, backgrounds, and the painting itself."""
