"""The bundled configurations."""
