"""The page at `/`, for people: one HTML template, one style sheet, its scripts and its icon.

Lives here: these files, and where they are. Does not: routes (api/http/page.py serves the files),
and anything that the scripts do not ask of the routes of `/v1`.
"""

from pathlib import Path

PAGE_FOLDER = Path(__file__).parent
