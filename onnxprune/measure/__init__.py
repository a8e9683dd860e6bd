"""How far a model's outputs moved, in one number: what they hold (``fields``), and what of it is lost (``loss``)."""
