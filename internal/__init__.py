"""The router's own domain: no sockets, no HTTP, no protocols. interface/ imports it, never the other way."""

__version__ = "2.0.0"
