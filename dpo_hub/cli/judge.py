"""The command that has a model judge replies before and after training."""

from __future__ import annotations

import json
import os
from random import Random
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import JudgeError, RecipeError
from ..runs.run import Run
from .options import Json, RunName, Token
from .output import print_edited

if TYPE_CHECKING:
    from ..comparison.judges import Compare
    from ..comparison.votes import Ballot

cli = typer.Typer()


@cli.command()
def judge(  # noqa: PLR0913  # one parameter per option
    run: RunName,
    *,
    model: Annotated[
        str | None, typer.Option("--with", metavar="MODEL", help="The judge's name on its server.")
    ] = None,
    reward_model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A reward model to run here as the judge: a Hub id or a folder.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option("--at", metavar="URL", help="An OpenAI-compatible server; by default Hugging Face inference."),
    ] = None,
    key_from: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="The environment variable that holds the server's key.")
    ] = None,
    prompts: Annotated[int, typer.Option(help="Held-out prompts to compare replies to.", min=1)] = 32,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Have a model judge replies before and after, each pair in both orders. Judgements are saved as they come."""
    from ..comparison.judges import AT_ONCE, FILE, judge, judgements_of, record_verdict

    found = Run.open(run).require_finished()
    if (model is None) == (reward_model is None):
        raise RecipeError("Who is to judge? Give --with MODEL for one that is asked, or --reward-model MODEL.")
    name, compare = (
        _reward_model_judge(reward_model)
        if reward_model
        else _endpoint_judge(str(model), url, _key(url, key_from, token))
    )
    try:
        at_once = 1 if reward_model else AT_ONCE  # each comparison by a local model needs memory
        verdict = judge(found, name, _ballots(found, prompts), compare, at_once=at_once)
    except JudgeError as error:
        kept = len(judgements_of(found, name))
        raise JudgeError(f"{error} {kept} comparisons are kept in {FILE}; run it again to go on from there.") from error
    rendered = record_verdict(found, verdict)
    print(json.dumps({"run": found.id, **verdict.as_dict()}, indent=2) if as_json else "\n".join(verdict.sentences()))
    if not rendered:
        print_edited(found)


def _endpoint_judge(model: str, url: str | None, key: str | None) -> tuple[str, Compare]:
    from ..comparison.endpoint import Endpoint

    endpoint = Endpoint(model, url, key)
    return endpoint.title, endpoint.compare


def _reward_model_judge(name: str) -> tuple[str, Compare]:
    from ..comparison.reward_model import RewardModel
    from ..training.policy import quiet

    quiet()
    return name, RewardModel.open(name).compare


def _key(url: str | None, variable: str | None, token: str | None) -> str | None:
    """Return the key for the judge; for another server, it comes only from a variable and is never the Hub token."""
    if url is None:
        return token
    if token:
        raise RecipeError("--token is for the Hub, and --at names another server. Name its key's variable: --key-from")
    if variable and variable not in os.environ:
        raise RecipeError(f"There is no environment variable {variable}. Set it to the server's key.")
    return os.environ[variable] if variable else None


def _ballots(run: Run, count: int) -> list[Ballot | None]:
    from ..comparison.duet import Duet
    from ..comparison.votes import held_out_prompts, make_ballot
    from ..training.policy import quiet

    quiet()
    prompts = held_out_prompts(run)[:count]
    rng = Random(run.recipe.seed)
    replies = Duet.open(run).replies(prompts, seed=run.recipe.seed)
    return [
        make_ballot(prompt, both.before, both.after, rng=rng) for prompt, both in zip(prompts, replies, strict=True)
    ]
