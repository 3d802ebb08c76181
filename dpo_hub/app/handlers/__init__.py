"""What the app does, without Gradio: one module a step. The steps of the page only call these and show what they give.

Names that come from the browser are looked up among what is there, and never used as paths.
"""
