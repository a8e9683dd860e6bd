"""Linear layers in one normal form, whatever operator they are written with."""
