"""What people read off a model's outputs, and how far two models agree in that."""
