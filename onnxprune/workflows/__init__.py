"""The workflows of the public functions and the commands: one module each, from the model to the result."""
