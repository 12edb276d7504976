"""Request/response protocols over WebSockets: text in, events and text out. Pure."""
