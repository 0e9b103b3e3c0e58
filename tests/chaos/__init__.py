"""The kill run: seeded load, kill -9 of everything, and an oracle that knows what must exist afterwards."""
