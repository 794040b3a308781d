"""Colours of all figures: the palette of Okabe and Ito, for colour-blind readers too."""

BLUE = "#0072B2"
SKY = "#56B4E9"
GREEN = "#009E73"
ORANGE = "#E69F00"
RED = "#D55E00"
PURPLE = "#CC79A7"
GREY = "#6E7781"
