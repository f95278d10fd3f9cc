"""Tasks without end: synthetic tasks, of which seldom two have the same description.

Written by us; nothing of held-out tasks or of our benches is in them, but for single common words.
"""
