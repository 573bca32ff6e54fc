"""A strict local SATUSEHAT for demos, tests and training; imports nothing from internal/ or interface/."""
