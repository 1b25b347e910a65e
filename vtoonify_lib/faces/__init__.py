"""From a picture to a crop that the networks want: find, measure, follow, cut out, and parse faces."""
