"""Line synthesiser, used at training time only: nothing else in the package imports it.

`fetch` downloads the inputs and `charset` lists the characters. `glyphs` holds strokes and fonts, `latin` pen strokes
of Latin letters, `digits` real digits; `writer` turns them into one hand, `running` shortens its strokes; `text` draws
the labels, `layout` places the characters, `ink` draws them, `line` puts it all together. `pens` and `unipen` make
lines of real pen trajectories. The paper of the scan is in `training.paper`. Everything is drawn from a NumPy
generator, so a seed and an index determine a line.
"""
