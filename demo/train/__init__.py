"""How the demo weights were trained: autoencoder, then image model. Every stage resumes from its last saved state."""
