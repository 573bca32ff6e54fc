"""Everything that talks to the outside: ways in, ways out, and the command line."""
