"""Networks whose tokens are the pixels of an image, in raster order."""
