"""Coming in: sessions, API keys, single sign-on, and the check that stands before every route."""
