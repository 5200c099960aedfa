"""The page and its server: HTTP, WebRTC and the calls that are held over them."""
