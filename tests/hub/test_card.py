"""The model card: what it says, what publishing makes of it, and what hostile text cannot make it say."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from dpo_hub import Recipe, Run
from dpo_hub.cli.options import with_recipe_options
from dpo_hub.errors import PublishError
from dpo_hub.hub.card import ADAPTER_LINE, NO_LICENCE_LINE, adapt_card, render_card
from dpo_hub.runs.base_model import LOCAL_FOLDER, public_base

from .conftest import BASE, SAMPLE, STEP, VERSIONS, Python, Tiny, measured_run
from .hostile import STRINGS
from .loopback import Hub

METADATA = {
    "base_model": BASE,
    "base_model_relation": "adapter",
    "library_name": "peft",
    "pipeline_tag": "text-generation",
    "tags": ["dpo", "lora", "trl", "dpo-hub"],
}
WIN_RATE = {"win_rate": 0.625, "win_rate_low": 0.5, "win_rate_high": 0.74, "comparisons": 64}


def metadata(card: str) -> Any:
    return ModelCard(card).data.to_dict()


def front(card: str) -> str:
    return card[: card.index("\n---\n", 4)]


def change(run: Run, name: str, **values: Any) -> None:
    """Change some values in one of the run's JSON files."""
    path = run.path / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def look(step: int, kl: float) -> dict[str, float]:
    return {"step": step, "pairs": 2, "loss": 0.5, "margin": 0.25, "reward_accuracy": 0.5, "kl": kl}


def figures(card: str) -> dict[str, Any]:
    """The figures in the metadata, by the kind of measure."""
    ((result,),) = [model["results"] for model in metadata(card)["model-index"]]
    return {metric["type"]: metric["value"] for metric in result["metrics"]}


def test_a_card_tells_what_was_taught_and_measured(tmp_path: Path) -> None:
    """Source, pairs, rows left out, findings, measurements, samples, recipe, packages and digest are all there."""
    run = measured_run(tmp_path)
    card = render_card(run)
    for told in (
        "10 pairs from `tone.csv`: 8 to train on and\n2 held out",
        "- 2: `no chosen`",
        "- `There are only 10 pairs.`",
        "| Reward accuracy | 1.000 |",
        "| Mean margin | 0.750 |",
        "```text\nbecause\n```",
        "| beta | `0.1` |",
        "dpo-hub train tone.csv --model ada/tiny-base --learning-rate 0.0001 --epochs 1.0 --batch-size 8",
        " --held-out 0.2\n",
        run.report["sha256"],
        'from_pretrained("ada/tiny-base")',
    ):
        assert told in card


def test_the_versions_are_those_of_training(tmp_path: Path) -> None:
    """Packages are told as the run's report has them, whatever is installed where the card is rendered."""
    run = measured_run(tmp_path)
    table = "".join(f"| {package} | {number} |\n" for package, number in VERSIONS.items())
    assert table in render_card(run)
    change(run, "report.json", versions={"peft": "0.0.1"})
    assert "| peft | 0.0.1 |\n\n## Limits" in render_card(run)


def test_the_metadata_is_what_the_hub_reads(tmp_path: Path) -> None:
    """The Hub's own parser finds library, base model, task, tags and what was measured."""
    told = metadata(render_card(measured_run(tmp_path)))
    (index,) = told.pop("model-index")
    assert told == METADATA
    assert index == {
        "name": "lora-adapter",
        "results": [
            {
                "task": {"type": "text-generation"},
                "dataset": {"name": "Held-out pairs", "type": "preferences"},
                "metrics": [
                    {"type": "reward_accuracy", "value": 1.0, "name": "Reward accuracy"},
                    {"type": "margin", "value": 0.75, "name": "Mean margin"},
                ],
            }
        ],
    }


def test_kl_and_win_rate_where_they_were_measured(tmp_path: Path) -> None:
    """Figures that only some runs have are in metadata and body, the win rate with its interval."""
    run = measured_run(tmp_path)
    run.append_evaluation(look(1, kl=0.123456))
    change(run, "evaluation.json", **WIN_RATE)
    card = render_card(run)
    assert figures(card) == {"reward_accuracy": 1.0, "margin": 0.75, "kl": 0.1235, "win_rate": 0.625}
    metrics = metadata(card)["model-index"][0]["results"][0]["metrics"]
    assert metrics[-1]["args"] == {name: WIN_RATE[name] for name in ("win_rate_low", "win_rate_high", "comparisons")}
    assert "| Win rate against the reference | 0.625 (0.500 to 0.740, by 64 comparisons) |" in card
    assert "| 1 | 0.500 | 0.500 | 0.250 | 0.123 |" in card


def test_the_kl_is_that_of_the_step_that_was_kept(tmp_path: Path) -> None:
    """Where an earlier step's adapter was kept, its KL is told, and none where that step was not looked at."""
    run = measured_run(tmp_path)
    for step, kl in ((1, 0.1), (2, 0.2)):
        run.append_evaluation(look(step, kl))
    run.append_metrics({"step": 2, **STEP})
    assert figures(render_card(run))["kl"] == 0.2
    change(run, "report.json", auto_stop={"ended": 2, "steps": 9, "kept": 1, "why": ""})
    assert figures(render_card(run))["kl"] == 0.1
    assert "It ended with step 2 of 9; the adapter is that of step 1." in render_card(run)
    run.append_metrics({"step": 3, **STEP})
    change(run, "report.json", auto_stop=None)
    assert "kl" not in figures(render_card(run))


def test_a_figure_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    """Training that broke down leaves no `nan` in the metadata."""
    run = measured_run(tmp_path)
    change(run, "evaluation.json", margin=float("nan"))
    assert figures(render_card(run)) == {"reward_accuracy": 1.0}


def test_a_long_course_is_told_in_short(tmp_path: Path) -> None:
    """Of many interim evaluations ten are listed, and the last is one of them."""
    run = measured_run(tmp_path)
    for step in range(1, 98):
        run.append_evaluation(look(step, kl=0.1))
    course = re.findall(r"^\| (\d+) \| 0\.500 \|", render_card(run), re.MULTILINE)
    assert (len(course), course[-1]) == (10, "97")


def test_the_curves_are_shown_where_they_were_drawn(tmp_path: Path) -> None:
    """The card shows the picture beside it, and no broken one."""
    run = measured_run(tmp_path)
    assert "curves.png" not in render_card(run)
    run.write("curves.png", b"")
    assert "](curves.png)" in render_card(run)


def test_pairs_from_the_hub(tmp_path: Path) -> None:
    """A dataset on the Hub is named in the metadata, linked, and what the command line takes."""
    card = render_card(measured_run(tmp_path, source="ada/choices:main/train"))
    assert metadata(card)["datasets"] == ["ada/choices"]
    assert metadata(card)["model-index"][0]["results"][0]["dataset"]["type"] == "ada/choices"
    assert "from [ada/choices](https://huggingface.co/datasets/ada/choices), `main/train`: 8" in card
    assert "dpo-hub train ada/choices:main/train --model" in card


@pytest.mark.parametrize("source", ["/home/ada/secret/tone.csv", "secret/tone.csv", "C:\\secret\\tone.csv"])
def test_of_a_file_only_the_name_is_told(tmp_path: Path, source: str) -> None:
    """Whatever path a source was given by, its folder stays at home."""
    card = render_card(measured_run(tmp_path, source=source))
    assert "secret" not in card
    assert "datasets" not in metadata(card)
    assert "pairs from `tone.csv`" in card


@pytest.mark.parametrize("model", ["/home/ada/secret/model", "./secret/model", "C:\\secret\\model", "~/secret/model"])
def test_a_path_is_not_told(tmp_path: Path, model: str) -> None:
    """A base model in a folder is called a local folder, and the metadata names no base model."""
    card = render_card(measured_run(tmp_path, model=model))
    assert "secret" not in card
    assert LOCAL_FOLDER in card
    assert "base_model" not in metadata(card)


def test_a_folder_that_looks_like_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder `owner/name` is a folder, wherever the card is made; a name on the Hub stays one beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    card = render_card(measured_run(tmp_path, model="owner/name"))
    assert LOCAL_FOLDER in card
    assert public_base("owner/other") == "owner/other"


def test_the_demo_model_is_loaded_from_the_package(tmp_path: Path) -> None:
    """A card of a run on the demo model loads the base from the package and names no base on the Hub."""
    card = render_card(measured_run(tmp_path, model="demo"))
    assert "from dpo_hub.runs.base_model import EMBEDDED" in card
    assert "from_pretrained(EMBEDDED)" in card
    assert "base_model" not in metadata(card)


def test_the_cards_code_runs(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading, comparing and merging, one after the other, end in a model without PEFT that gives the same logits."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    card = tiny.run.card.replace(f'"{BASE}"', repr(str(tiny.base))).replace('"adapter"', repr(str(tiny.run.adapter)))
    blocks = re.findall(r"^```python\n(.*?)^```", card, re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()) as told:
        exec("\n".join(blocks), {})
    assert re.findall(r"^(before|after): ", told.getvalue(), re.MULTILINE) == ["before", "after"]
    expected = load_file(tiny.logits)["logits"]
    merged = AutoModelForCausalLM.from_pretrained("merged")
    with torch.inference_mode():
        torch.testing.assert_close(merged(torch.arange(expected.shape[1])[None]).logits, expected)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe.for_model(),
        Recipe.for_model(beta=0.3, learning_rate=1e-5, auto_stop=True, load_in_4bit=True, seed=7),
        Recipe.for_model("ada/tiny-base", loss="ipo", engine="trl", batch_size=2, accumulation=4, epochs=0.5),
    ],
)
def test_the_command_makes_the_recipe_again(tmp_path: Path, recipe: Recipe) -> None:
    """The command line in the card, read by the command line's own parser, gives the very recipe and file."""
    run = measured_run(tmp_path, source="two words.csv")
    run.write("recipe.json", recipe.to_json())
    (line,) = re.findall(r"^```sh\n(.*)\n```", render_card(run), re.MULTILINE)
    program, verb, *words = shlex.split(line)
    assert (program, verb, *parsed(words)) == ("dpo-hub", "train", "two words.csv", recipe)


def parsed(words: list[str]) -> tuple[str, Recipe]:
    """What `dpo-hub train` makes of *words*."""
    read: list[tuple[str, Recipe]] = []
    cli = typer.Typer()

    @cli.command()
    @with_recipe_options
    def train(file: str, *, settings: dict[str, Any]) -> None:
        read.append((file, Recipe.for_model(settings.pop("model") or "demo", **settings)))

    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return read[0]


def fill(run: Run, text: str) -> None:
    """Put *text* wherever the text of others comes into a card."""
    change(
        run,
        "report.json",
        source=text,
        layout=text,
        mapping={"chosen": text},
        notes=[text],
        left_out={text: 2},
        findings=[{"message": text}],
    )
    (run.path / "samples.jsonl").write_text(json.dumps(dict.fromkeys(SAMPLE, text)) + "\n", encoding="utf-8")


def meaning(body: str) -> list[tuple[str, str, str]]:
    """What a reader of Markdown makes of *body*: each element, with its text where that is not code."""
    tokens = MarkdownIt("commonmark").enable("table").parse(body)
    flat = [part for token in tokens for part in (token.children or [token])]
    return [(part.type, part.tag, "" if part.type in ("code_inline", "fence") else part.content) for part in flat]


def test_hostile_text_is_inert(tmp_path: Path) -> None:
    """Whatever stands in names, prompts, replies, reasons and findings, all but code spans and fences is the same."""
    assert len(STRINGS) >= 500
    run = measured_run(tmp_path)
    fill(run, "harmless")
    harmless = render_card(run)
    inert = front(harmless), meaning(harmless.removeprefix(front(harmless)))
    for text in STRINGS:
        fill(run, text)
        card = render_card(run)
        assert card.encode()
        assert (front(card), meaning(card.removeprefix(front(card)))) == inert, repr(text)


def test_a_backtick_at_the_edge_of_a_file_name(tmp_path: Path) -> None:
    """A code span whose text has backticks at its ends is not closed by them."""
    card = render_card(measured_run(tmp_path, source="`a``b`"))
    assert "from ``` `a``b` ```:" in card


def test_publishing_puts_in_what_was_not_known(tmp_path: Path) -> None:
    """The adapter's place, the model's name, licence, languages and the pairs' place are told, and nothing else is."""
    card = render_card(measured_run(tmp_path))
    out = adapt_card(
        card,
        repo_id="ada/tone",
        license="other",
        license_name="llama",
        language=["en"],
        datasets=["ada/tone-preferences"],
    )
    (index,) = metadata(out)["model-index"]
    assert index["name"] == "tone"
    added = {"license": "other", "license_name": "llama", "language": ["en"], "datasets": ["ada/tone-preferences"]}
    assert metadata(out) == metadata(card) | added | {"model-index": [index]}
    told, was = (text.partition("\n---\n")[2].splitlines() for text in (out, card))
    assert [new for new, old in zip(told, was, strict=True) if new != old] == [
        'adapter = "ada/tone"',
        "No prompt is in both. The pairs are published: "
        "[ada/tone-preferences](https://huggingface.co/datasets/ada/tone-preferences).",
    ]


def test_an_unknown_licence_is_told(tmp_path: Path) -> None:
    """Where no licence was found the limits say so; one that somebody wrote into the card counts."""
    card = render_card(measured_run(tmp_path))
    assert adapt_card(card, repo_id="ada/tone").endswith(f"\n{NO_LICENCE_LINE}\n")
    assert "license" not in metadata(adapt_card(card, repo_id="ada/tone"))
    by_hand = card.replace("---\n", "---\nlicense: mit\n", 1)
    assert NO_LICENCE_LINE not in adapt_card(by_hand, repo_id="ada/tone")


def test_what_was_edited_by_hand_stays(tmp_path: Path) -> None:
    """Further metadata and text survive, also where a part that publishing looks for was removed."""
    card = render_card(measured_run(tmp_path)).replace("---\n", "---\nthumbnail: x.png\ndatasets: ada/own\n", 1)
    card = card.replace("\n# A LoRA", "\n# My\n\n---\n\nA LoRA").replace(f"{ADAPTER_LINE}\n", "")
    out = adapt_card(card, repo_id="ada/tone", license="mit", datasets=["ada/own", "ada/more"])
    assert metadata(out)["thumbnail"] == "x.png"
    assert metadata(out)["datasets"] == ["ada/own", "ada/more"]
    assert "\n# My\n\n---\n\nA LoRA" in out
    assert adapt_card("Hello.\n", repo_id="ada/tone", license="mit") == "---\nlicense: mit\n---\nHello.\n"


def test_publishing_twice_is_publishing_once(tmp_path: Path) -> None:
    """A card that was fitted to its repository stays as it is."""
    once = adapt_card(render_card(measured_run(tmp_path)), repo_id="ada/tone", datasets=["ada/pairs"])
    assert adapt_card(once, repo_id="ada/tone", datasets=["ada/pairs"]) == once


def test_publishing_takes_no_hostile_text_for_a_line_of_the_card(tmp_path: Path) -> None:
    """A prompt that is one of the lines that publishing replaces is left alone, and the card's own line is replaced."""
    run = measured_run(tmp_path)
    fill(run, "\n".join(text for text in STRINGS if "\r" not in text and text.isprintable()))
    card = render_card(run)
    out = adapt_card(card, repo_id="ada/tone", datasets=["ada/pairs"])
    was, told = (re.findall(r"^(`{3,})text\n(.*?)\n\1$", text, re.DOTALL | re.MULTILINE) for text in (card, out))
    assert len(was) == 3
    assert told == was
    assert out.index('adapter = "ada/tone"') < out.index("The pairs are published") < out.index(NO_LICENCE_LINE)


@pytest.mark.parametrize("broken", ["- a list", "license: [", "model-index: [1]"])
def test_metadata_that_cannot_be_read(broken: str) -> None:
    """What somebody broke by hand is said, with where it is."""
    with pytest.raises(PublishError, match=r"at the top of README\.md cannot be read"):
        adapt_card(f"---\n{broken}\n---\nHello.\n", repo_id="ada/tone")


def test_the_hub_takes_the_card(tiny: Tiny, hub: Hub, python: Python, tmp_path: Path) -> None:
    """The Hub's check of a finished run's card passes, and every key has the type that the Hub asks for."""
    run = measured_run(tmp_path, source="ada/choices:train")
    change(run, "evaluation.json", **WIN_RATE)
    path = tmp_path / "README.md"
    path.write_text(adapt_card(render_card(run), repo_id="ada/tone", license="mit", language=["en"]), encoding="utf-8")
    code = "import sys; from huggingface_hub import ModelCard; ModelCard.load(sys.argv[1]).validate()"
    done = replace(python, home=tmp_path)("-c", code, path)
    assert done.returncode == 0, done.stderr
    (card,) = hub.cards
    texts = ("library_name", "base_model", "base_model_relation", "pipeline_tag", "license")
    lists = ("tags", "datasets", "language")
    assert card.keys() == {*texts, *lists, "model-index"}
    assert all(isinstance(card[name], str) for name in texts)
    assert all(isinstance(value, str) for name in lists for value in card[name])
    (result,) = card["model-index"][0]["results"]
    assert result["dataset"] == {"type": "ada/choices", "name": "Held-out pairs"}
    assert [(type(metric["type"]), type(metric["value"])) for metric in result["metrics"]] == [(str, float)] * 3
