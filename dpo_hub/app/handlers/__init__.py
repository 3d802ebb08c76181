"""What the app does, without Gradio: one module a step. The page's steps only call these and show the results.

Names that come from the browser are looked up among existing ones, and never used as paths.
"""
