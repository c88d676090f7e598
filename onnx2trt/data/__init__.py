"""Images and arrays as the model takes them."""
