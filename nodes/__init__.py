"""What a user sees: schema and execute(), one module per method. Nodes wire; they never compute."""
