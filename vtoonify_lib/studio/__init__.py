"""The portrait studio: one Gaussian vector → a person → pictures in any style, with exact ground truth."""
