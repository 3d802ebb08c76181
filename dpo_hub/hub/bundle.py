"""The files of a run's repositories: adapter, pairs and merged model. Knows nothing of the Hub's API.

No file contains a path of this machine, and none is a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData, ModelCardData

from ..errors import PublishError
from ..preferences.export import write_preferences
from ..runs.base_model import is_on_hub, public_base, public_name
from ..runs.run import Run
from .card import adapt_card, environment, origin, public_source

Files = dict[str, bytes | Path]
"""Content, or the local path of it, by path in the repository."""

MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Endings of the files that are published from a model's folder: weights, settings and tokenizer, never a pickle."""
MEASURED = ("metrics.jsonl", "evaluation.json", "curves.png")
"""Files that are published from the run's folder unchanged, if they exist."""
SPLITS = {"train": "data/train.jsonl", "held_out": "data/test.jsonl"}


@dataclass(frozen=True)
class Inherited:
    """What a derived model inherits from the base model's card: its licence and its languages."""

    license: Mapping[str, Any] = field(default_factory=dict)
    """`license`, and if that is `other`, also `license_name` and `license_link`. Empty if unknown."""
    language: Sequence[str] = ()

    @classmethod
    def of(cls, base: str, card: Mapping[str, Any]) -> Inherited:
        """Read the metadata *card* of *base*; a link relative to its repository becomes absolute."""
        said = {name: value for name in ("license", "license_name", "license_link") if (value := card.get(name))}
        link = said.get("license_link", "")
        if link and "://" not in link:
            said["license_link"] = f"https://huggingface.co/{base}/blob/main/{link}"
        languages = card.get("language") or []
        return cls(said if "license" in said else {}, [languages] if isinstance(languages, str) else list(languages))


OF_OURS = Inherited({"license": "apache-2.0"}, ["en"])
"""What the models in `runs.base_model.OURS` pass on, known without asking the Hub."""


def adapter_files(run: Run, repo_id: str, inherited: Inherited, *, data: str | None = None) -> Files:
    """The adapter's repository: weights, tokenizer, card, curves, recipe and measurements.

    Args:
        run: a finished run.
        repo_id: the name it will get.
        inherited: what it inherits from its base model.
        data: the repository of its pairs, if they are published.

    Raises:
        PublishError: the adapter was removed.
    """
    if not (run.adapter / "adapter_model.safetensors").is_file():
        raise PublishError(
            f"There is no adapter in {run.adapter}, so there is nothing to publish. Train the run again."
        )
    base = public_base(run.recipe.model)
    config = json.loads((run.adapter / "adapter_config.json").read_text(encoding="utf-8"))
    card = adapt_card(
        run.card,
        repo_id=repo_id,
        language=list(inherited.language),
        datasets=[data] if data else [],
        **inherited.license,
    )
    return {
        **{path.name: path for path in _model_files(run.adapter)},
        **{name: run.path / name for name in MEASURED if (run.path / name).is_file()},
        "README.md": card.encode(),
        "recipe.json": replace(run.asked, model=public_name(run.asked.model)).to_json().encode(),
        "adapter_config.json": _json(config | {"base_model_name_or_path": base}),
    }


def data_files(run: Run, repo_id: str, model_id: str, folder: Path) -> Files:
    """The repository of a run's pairs, in the splits of the run; *folder* is where the files are written."""
    files: Files = {"README.md": _data_card(run, repo_id, model_id).encode()}
    for split, name in SPLITS.items():
        path = folder / Path(name).name
        write_preferences(run.pairs(split), path)
        files[name] = path
    return files


def merged_files(run: Run, repo_id: str, model_id: str, inherited: Inherited, folder: Path) -> Files:
    """The repository of the merged model that is in *folder*."""
    card = _merged_card(run, repo_id, model_id, inherited)
    return {**{path.name: path for path in _model_files(folder)}, "README.md": card.encode()}


def _model_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in MODEL_FILES)


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode()


def _data_card(run: Run, repo_id: str, model_id: str) -> str:
    data = DatasetCardData(
        tags=["dpo", "preference", "trl", "dpo-hub"],
        task_categories=["text-generation"],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": Path(name).stem, "path": name} for name in SPLITS.values()],
            }
        ],
    )
    report = run.report
    body = (
        environment()
        .get_template("data.md.jinja")
        .render(repo=repo_id, model=model_id, report=report, source=public_source(report["source"]))
    )
    return f"---\n{data.to_yaml()}\n---\n{body}"


def _merged_card(run: Run, repo_id: str, model_id: str, inherited: Inherited) -> str:
    base = public_base(run.recipe.model)
    on_hub = is_on_hub(base)
    said: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": base if on_hub else None,
        "base_model_relation": "finetune" if on_hub else None,
        "language": list(inherited.language) or None,
        "tags": ["dpo", "trl", "dpo-hub"],
        **inherited.license,
    }
    data = ModelCardData(**said)
    body = (
        environment()
        .get_template("merged.md.jinja")
        .render(
            model=repo_id,
            adapter=model_id,
            base=base,
            on_hub=on_hub,
            origin=origin(run.report),
            licence_known=bool(inherited.license),
        )
    )
    return f"---\n{data.to_yaml()}\n---\n{body}"
