"""Families over short texts as they come in at an office: reading, judging and rewriting them."""
