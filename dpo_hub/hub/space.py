"""The app on a Space: its files, and how to create, update and control it. Needs neither torch nor Gradio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi, Volume
from jinja2 import StrictUndefined, Template
from packaging.requirements import Requirement
from packaging.version import Version

from .. import __version__
from ..errors import PublishError
from .account import require_name, require_writable
from .calls import explaining_hub_errors, with_retries
from .commits import SPACE, commit_once, file_ids, get_repository
from .package import NAME, PACKAGE, package_files, requirements

FREE = "cpu-basic"
"""The hardware of a Space unless another is requested."""
KEPT = "/data"
"""Where the bucket with the runs is mounted on a Space."""
INITIAL_FILES = {".gitattributes", "README.md"}
"""The files that the Hub itself puts into a new Space."""
APP = '''"""The app on a Hugging Face Space."""

from dpo_hub.app import launch

launch()
'''


@dataclass(frozen=True)
class Settings:
    """The initial settings of a Space. Later changes are made with `hf spaces`."""

    private: bool = True
    hardware: str = FREE
    sleep: int | None = None
    """Seconds without a visitor until paid hardware is released; -1 for never."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    variables: Mapping[str, str] = field(default_factory=dict)
    keeps_runs: bool = True
    """Whether runs are kept in a bucket, so that they survive a restart."""


def space_files(pins: Mapping[str, str] | None = None) -> dict[str, bytes]:
    """The files beside the package on a Space; *pins* as in `requirements`."""
    needs = {Requirement(line).name: line for line in requirements("app", pins=pins)}
    gradio = Requirement(needs.pop("gradio")).specifier
    oldest = min(Version(bound.version) for bound in gradio if bound.operator in ("==", ">="))
    readme = Template(
        (PACKAGE / "hub" / "space.md.jinja").read_text(encoding="utf-8"),
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    ).render(sdk_version=f"{oldest.major}.{oldest.minor}.{oldest.micro}")
    listed = ["# What dpo_hub/ beside app.py needs. Gradio comes from sdk_version in README.md.", *needs.values()]
    return {"README.md": readme.encode(), "app.py": APP.encode(), "requirements.txt": "\n".join([*listed, ""]).encode()}


def create(api: HfApi, repo_id: str, settings: Settings) -> str:
    """Create the Space *repo_id* with the app on it, and return its URL.

    Raises:
        UnreachableError: the Hub cannot be reached.
        PublishError: the Space already exists, or the Hub refuses to create it.
    """
    require_writable(repo_id, api, kind=SPACE)
    with explaining_hub_errors(repo_id, api, outcome="so no Space was made"):
        if with_retries(lambda: api.repo_exists(repo_id, repo_type=SPACE)):
            raise PublishError(
                f"{repo_id} is there already. Bring the app on it up to date with dpo-hub space update {repo_id}, or "
                "take another name."
            )
        bucket = [_bucket(api, f"{repo_id}-runs")] if settings.keeps_runs else []
        kept = {"DPO_HUB_HOME": f"{KEPT}/{NAME}"} if settings.keeps_runs else {}
        with_retries(
            lambda: api.create_repo(
                repo_id,
                repo_type=SPACE,
                private=settings.private,
                exist_ok=True,  # it did not exist: if it does now, a request whose answer was lost created it
                space_sdk="gradio",
                space_hardware=settings.hardware,  # type: ignore[arg-type]  # any name that the Hub knows
                space_sleep_time=settings.sleep,
                space_secrets=_listed(settings.secrets) or None,
                space_variables=_listed({**kept, **settings.variables}) or None,
                space_volumes=bucket,
            )
        )
    try:
        return update(api, repo_id)
    except PublishError as error:
        raise type(error)(
            f"The Space {repo_id} was made, but without the app. {error} Then: dpo-hub space update {repo_id}"
        ) from error


def _listed(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in values.items()]


def _bucket(api: HfApi, bucket_id: str) -> Volume:
    """A private bucket, created if it does not exist, as a volume for a Space."""
    with_retries(lambda: api.create_bucket(bucket_id, private=True, exist_ok=True))
    if not with_retries(lambda: api.bucket_info(bucket_id)).private:
        raise PublishError(
            f"Runs would lie in the bucket {bucket_id}, which is there already and is public, so no Space was made. "
            "Make the bucket private on the Hub, or take another name."
        )
    return Volume(type="bucket", source=bucket_id, mount_path=KEPT)


def update(api: HfApi, repo_id: str) -> str:
    """Put the local version of the app on the Space *repo_id*, in one commit, and return the Space's URL.

    Raises:
        UnreachableError: the Hub cannot be reached.
        PublishError: there is no such Space, it has another app on it, or this token may not write to it.
    """
    require_name(repo_id)
    with explaining_hub_errors(repo_id, api, outcome="so the app on it was left as it was"):
        there = get_repository(api, repo_id, kind=SPACE)
        found = file_ids(api, there, there.head)
        packaged = {path for path in found if path.startswith(f"{NAME}/")}
        if not packaged and found.keys() - INITIAL_FILES:
            raise PublishError(f"{repo_id} has another app on it, which was left as it was. Take another name.")
        files: dict[str, bytes | Path] = {**space_files(), **package_files()}
        commit_once(api, there, files, message=f"DPO Hub {__version__}", delete=sorted(packaged - files.keys()))
    return f"{api.endpoint}/spaces/{repo_id}"


def logs(api: HfApi, repo_id: str, *, build: bool = False, follow: bool = False) -> Iterator[str]:
    """The log of the app on the Space, or of its *build*; with *follow*, until the Hub sends no more.

    Raises:
        UnreachableError: the Hub cannot be reached.
        PublishError: there is no such Space, or this token may not see it.
    """
    require_name(repo_id)
    with explaining_hub_errors(repo_id, api, outcome="so there is nothing to read"):
        yield from api.fetch_space_logs(repo_id, build=build, follow=follow)


def pause(api: HfApi, repo_id: str) -> None:
    """Pause the Space until it is restarted; meanwhile it costs nothing. Errors as in `logs`."""
    require_name(repo_id)
    with explaining_hub_errors(repo_id, api, outcome="so it was not paused"):
        with_retries(lambda: api.pause_space(repo_id))


def restart(api: HfApi, repo_id: str) -> None:
    """Start the Space again. Errors as in `logs`."""
    require_name(repo_id)
    with explaining_hub_errors(repo_id, api, outcome="so it was not restarted"):
        with_retries(lambda: api.restart_space(repo_id))
