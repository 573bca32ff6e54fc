"""The router's own domain: no sockets, no HTTP, no pynetdicom. interface/ imports it, never the other way."""
