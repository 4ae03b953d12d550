"""Tasks: what each subcommand does, built from jobs, sampling, methods and models."""
