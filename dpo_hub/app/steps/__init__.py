"""The steps of the page, a module each: its components and its event listeners."""
