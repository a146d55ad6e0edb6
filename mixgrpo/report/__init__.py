"""Tables and figures: scores, measurements and metrics in, things to look at out.

The only place that imports pandas and matplotlib. What draws a figure is a file: its `draw(spec)` returns a
matplotlib figure, and several figures may name it. Knows no model; may import files, errors, config and
`algorithm`, whose window a figure shows.
"""
