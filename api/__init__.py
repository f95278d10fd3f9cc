"""The edges: command line and REST. All they do is check input, call `generator`, and report.
"""
