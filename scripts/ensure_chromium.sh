#!/bin/sh
# Print the path of a Chromium that the browser test can drive; install one where there is none.
# Says on stderr what it does. Needs no network once a browser is there.
set -eu

say() { echo "ensure_chromium: $*" >&2; }

on_path() {
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        if command -v "$name"; then return 0; fi
    done
    return 1
}

python=${PYTHON:-python3}

of_playwright() {
    "$python" - 2>/dev/null <<'PYTHON'
import pathlib, sys
from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    path = playwright.chromium.executable_path
if not pathlib.Path(path).is_file():
    sys.exit(1)
print(path)
PYTHON
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

found() {
    say "using $1"
    echo "$1"
    exit 0
}

if path=$(on_path); then found "$path"; fi
if path=$(of_playwright); then found "$path"; fi

say "no Chromium here; asking Playwright to download one"
if "$python" -m playwright install chromium >&2 && path=$(of_playwright); then found "$path"; fi

if command -v apt-get >/dev/null; then
    say "Playwright could not; installing the system's package with apt-get"
    if as_root apt-get update >&2 && as_root apt-get install -y chromium >&2 && path=$(on_path); then found "$path"; fi
fi

say "failed: install Chromium by hand, so that 'chromium' is on PATH, or run: $python -m playwright install chromium"
exit 1
