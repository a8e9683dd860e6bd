"""One Report value, three ways to read it: terminal, JSON, HTML."""
