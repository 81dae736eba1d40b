"""What happens inside the UNet's attention, one idea a file."""
