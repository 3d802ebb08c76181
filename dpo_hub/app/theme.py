"""The app's looks: one accent, system fonts, light and dark. Nothing is fetched from elsewhere."""

from __future__ import annotations

from ..errors import needing_extra

with needing_extra("app"):
    import gradio as gr


def theme() -> gr.themes.Base:
    """Teal on warm grey; the accent means "after", here and in the chat."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )


CSS = """
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0; }
footer .divider:first-child { display: none; }
.masthead { padding: 1.5rem 0 .25rem; }
.masthead h1 { font-size: 1.9rem; font-weight: 700; letter-spacing: -.02em; margin: 0; color: var(--body-text-color); }
.masthead p { font-size: 1.05rem; max-width: 46rem; margin: .35rem 0 0; color: var(--body-text-color-subdued); }
.step { display: flex; flex-wrap: wrap; align-items: baseline; gap: .1rem .65rem; margin-top: .6rem;
  padding-top: 1.3rem; border-top: 1px solid var(--border-color-primary); }
.step .number { flex: none; width: 1.7rem; height: 1.7rem; line-height: 1.7rem; border-radius: 50%; text-align: center;
  font-weight: 700; font-size: .95rem; color: white; background: var(--primary-700); }
.step h2 { font-size: 1.2rem; font-weight: 650; margin: 0; color: var(--body-text-color); }
.step p { margin: 0; color: var(--body-text-color-subdued); }
.reading { margin: 0 0 .7rem; font-weight: 550; overflow-wrap: anywhere; color: var(--body-text-color); }
.hint, .note { margin: 0; color: var(--body-text-color-subdued); }
.run .sentence { margin: 0 0 .6rem; font-size: 1.05rem; font-weight: 550; overflow-wrap: anywhere;
  color: var(--body-text-color); }
.run .badge { display: inline-block; margin-right: .6rem; padding: .1rem .55rem; border-radius: 1rem; font-size: .8rem;
  font-weight: 650; color: white; background: var(--neutral-600); }
.run.running .badge, .run.finished .badge { background: var(--primary-700); }
.run.failed .badge { background: #b91c1c; }
.run progress { width: 100%; height: .5rem; border: 0; border-radius: .25rem; overflow: hidden; appearance: none;
  background: var(--border-color-primary); }
.run progress::-webkit-progress-bar { background: var(--border-color-primary); }
.run progress::-webkit-progress-value { background: var(--primary-600); transition: width .6s; }
.run progress::-moz-progress-bar { background: var(--primary-600); }
.run.failed progress::-webkit-progress-value { background: #b91c1c; }
.run dl { display: flex; flex-wrap: wrap; gap: .5rem 2.4rem; margin: .8rem 0 .5rem; }
.run dl div { margin: 0; }
.run dt { font-size: .85rem; color: var(--body-text-color-subdued); }
.run dd { margin: 0; font-size: 1.35rem; font-weight: 650; font-variant-numeric: tabular-nums;
  color: var(--body-text-color); }
.run .about { margin: 0; font-size: .85rem; color: var(--body-text-color-subdued); overflow-wrap: anywhere; }
.setting > .container { display: flex; flex-direction: column; height: 100%; }
.setting > .container > :is(input, .wrap) { margin-top: auto; }
.log textarea { font-family: var(--font-mono); font-size: .8rem; }
.block#after { border-top: 3px solid var(--primary-600) !important; }
.block#before { border-top: 3px solid var(--neutral-400) !important; }
button.suggestion { text-align: left; justify-content: flex-start; font-weight: 400; white-space: normal; }
.texts { width: 100%; table-layout: fixed; border-collapse: collapse; font-size: .9rem; color: var(--body-text-color);
  background: var(--block-background-fill); }
.texts caption { text-align: left; padding: 0 0 .4rem; color: var(--body-text-color-subdued); }
.texts th, .texts td { text-align: left; vertical-align: top; padding: .5rem .7rem; overflow-wrap: anywhere;
  border: 1px solid var(--border-color-primary); }
.texts th { font-weight: 650; }
.texts td { white-space: pre-wrap; }
.texts th.chosen, .texts th.after { box-shadow: inset 0 3px var(--primary-600); }
.texts th.rejected, .texts th.before { box-shadow: inset 0 3px var(--neutral-400); }
@media (max-width: 640px) {
  .texts thead { display: none; }
  .texts, .texts caption, .texts tbody, .texts tr { display: block; border: 0 !important; padding: 0 !important; }
  .texts tr { margin-bottom: .8rem !important; border-bottom: 1px solid var(--border-color-primary) !important; }
  .texts td { display: block; border-bottom: 0; }
  .texts td::before { content: attr(data-label); display: block; font-size: .8rem;
    color: var(--body-text-color-subdued); }
  .masthead h1 { font-size: 1.5rem; } .run dl { gap: .5rem 1.4rem; }
}
"""
