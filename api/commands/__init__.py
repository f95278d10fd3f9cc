"""The commands of `lorasmith`, one file each. Heavy imports stay inside them: --help is instant."""
