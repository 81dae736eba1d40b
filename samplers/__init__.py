"""What happens along the noise axis: latents, noise, sigmas."""
