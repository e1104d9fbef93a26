"""Generated scenes, and the three small data sets made of them."""
