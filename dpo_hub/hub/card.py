from ..run import Run
def render_card(run: Run) -> str:
    return "card"
