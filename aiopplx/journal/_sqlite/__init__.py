"""The journal in a SQLite file. Nothing outside this folder imports sqlite3."""
