"""Synthesis of handwritten lines, for training only: nothing else in the package imports it.

`fetch` downloads the inputs and `charset` lists the characters. `glyphs` holds strokes and fonts, `latin` pen strokes
of Latin letters, `digits` real digits; `writer` turns them into one hand, `running` shortens its strokes; `text`
samples the labels, `layout` places the characters, `ink` draws them, `line` combines everything. `pens` and `unipen`
make lines from real pen trajectories. Paper and scanner are simulated in `training.paper`. All randomness comes from
one NumPy generator, so a seed and an index determine a line.
"""
