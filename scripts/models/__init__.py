"""How the embedded models and classifiers were trained."""
