"""The steps of the page, a module each: its components, and what happens to them."""
