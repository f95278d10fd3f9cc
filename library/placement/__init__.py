"""Which modules of a base get how much rank, out of one budget of trained numbers."""
