"""YAML for `lorasmith train`, one file per generator. Data only."""
