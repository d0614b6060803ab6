"""Results folders: written, told about and joined."""
