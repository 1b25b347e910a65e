"""Widgets over pure functions: play with styles until a picture looks right. Jupyter and Colab, ipywidgets 7.7 and 8.

    explorer  one picture, every style and degree; recipes, clips    space   styles and clips in three dimensions
    camera    a picture or a short clip from the webcam              parts   what they are made of

What a panel shows is computed elsewhere (`inference`, `styles`); whatever goes wrong is said inside the panel.
"""

from .camera import Camera, colab_snapshot
from .explorer import Explorer
from .space import coordinates, space_time, style_space

__all__ = ["Camera", "Explorer", "colab_snapshot", "coordinates", "space_time", "style_space"]
