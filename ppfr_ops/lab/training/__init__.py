"""How the learned methods are trained."""
