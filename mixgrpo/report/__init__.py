"""Tables and figures: scores, measurements and metrics in, things to look at out.

The only place that imports pandas and matplotlib. A figure is a file: `figure04` is `figure04.py`, and
its `draw(spec)` returns a matplotlib figure. May import files, errors; knows no model and no torch.
"""
