"""Line synthesiser, used at training time only: nothing else in the package imports it.

`fetch` brings the inputs, `charset` lists the characters, `glyphs` holds strokes and fonts, `writer` turns them
into one hand, `text` draws labels, `paper` makes a scan of the ink, `line` puts it all together, `augment`
changes real lines. Everything is drawn from a numpy generator, so a seed and an index fix a line.
"""
