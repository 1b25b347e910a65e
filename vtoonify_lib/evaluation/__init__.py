"""Numbers: how close a cartoon is to the truth or to the face, and how steady a clip."""
