"""Pictures and clips drawn with a bundle: the life of a frame."""
