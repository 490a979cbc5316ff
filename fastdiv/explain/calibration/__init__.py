"""How far confidence is from correctness, and what a temperature would save."""
