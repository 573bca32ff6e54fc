"""The HTTP port: health now, pages and API with the web issue."""
