"""Model cards and manifests, written from measurements."""
