"""PEFT folders: writing, reading, their config, safetensors files from outside, provenance.

Does not live here: other formats and a library's imports (library.exchange).
"""
