"""How what remains makes up for what is gone: least squares, layer after layer, against the original."""
