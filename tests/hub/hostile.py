"""Strings that mean harm: to YAML, to Markdown and HTML, to templates, to shells and to whoever decodes them.

In the manner of the Big List of Naughty Strings, but made by combining: each trick in each setting.
"""

from __future__ import annotations

from dpo_hub.hub.card import ADAPTER_LINE, LICENCE_LINE, SPLIT_LINE

TRICKS = (
    # YAML
    "---", "...", "license: mit", "- dpo", "? x", "&a *a", "!!python/object/apply:os.system [id]", "null", "~",
    "{a: b}",
    # Markdown
    "# Owned", "## Limits", "Owned\n====", "```", "````text", "~~~", "`", "``", "|", "| a | b |\n|---|---|", "> Owned",
    "1. Owned", "[x](javascript:alert(1))", "![x](http://x.example/y)", "[x]: http://x.example", "[x][]", "*Owned*",
    "http://x.example", "@ada", "\\", "\\`", "$x$", "    indented", "[^1]: Owned", "&lt;b&gt;",
    # HTML
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!--", "-->", "</details>", "<![CDATA[", "<?php ?>",
    # templates, shells, paths
    "{{ 7 * 7 }}", "{% raw %}", "{# x #}", "${7*7}", "$(id)", "'; DROP TABLE runs; --", "--force", "../../etc/passwd",
    "C:\\secret\\pairs.csv", "%s%n",
    # Unicode
    "\0", "\ud800", "\udcff", "\ufeff", "\u202eOwned", "\u2028# Owned", "\x85# Owned", "\r# Owned", "\x1b[2J", "\u200b",
    "Z\u0351\u036b\u0343a\u0329l\u0334g\u0322o\u0315", "👩\u200d👩\u200d👧", "田中さんにあげて下さい", "الله",
    # the card's own lines
    ADAPTER_LINE, SPLIT_LINE, LICENCE_LINE, "", " ",
)  # fmt: skip
SETTINGS = (
    "{}",
    "\n{}\n",
    "\n---\n{}\n---\n",
    "```\n{}",
    "`{}`",
    "| {} |",
    "\n\n{}\n\n# Owned",
    "\r\n{}\r",
)
STRINGS = tuple(dict.fromkeys(setting.format(trick) for trick in TRICKS for setting in SETTINGS))
