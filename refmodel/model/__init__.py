"""A checked model, its routes, its sessions."""
