"""Writes the list of texts the model was trained on, which ships beside the weights.

Several licences of the corpus ask for credit; the list is made from the data itself, so it cannot
drift from what was read.  Picture stories are named one by one with their authors, books by work,
everything else by collection.

    python -m base.attribution --data ../shared/data
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from base.corpus import ASSETS, HELD_BOOKS, PROSE, read_shards, us_only

CONVERSATIONS = (
    ("Schema-Guided Dialogue (train part)", "Google Research", "CC BY-SA 4.0",
     "github.com/google-research-datasets/dstc8-schema-guided-dialogue"),
    ("Taskmaster-4", "Google Research", "CC BY 4.0",
     "github.com/google-research-datasets/Taskmaster"),
    ("STAR", "Rasa Technologies", "MIT", "github.com/RasaHQ/STAR"),
    ("CoS-E explanations (train part)", "Salesforce", "BSD-3-Clause",
     "github.com/salesforce/cos-e"),
    ("CommonsenseQA questions (train part)", "Talmor and others", "MIT", "read through CoS-E"),
    ("ChatterBot corpus, English small talk", "Gunther Cox", "BSD-3-Clause",
     "github.com/gunthercox/chatterbot-corpus"),
)  # fmt: skip
COLLECTIONS = {
    "globalwordnet/english-wordnet": "Open English WordNet, by its team; WordNet by Princeton",
    "jshepp27/countaBot": "English Wikinews, by its contributors (copy at this repository)",
    "openstax/osbooks-introduction-business": "Introduction to Business, OpenStax",
    "openstax/osbooks-college-success-bundle": "College Success, OpenStax",
    "openstax/osbooks-life-liberty-and-pursuit-happiness":
        "Life, Liberty, and the Pursuit of Happiness, Bill of Rights Institute and OpenStax",
    "github/opensource.guide": "Open Source Guides, by GitHub and contributors",
    "factbook/factbook.json": "The World Factbook, CIA",
    "GSA/plainlanguage.gov": "plainlanguage.gov, United States government",
    "LukeSmithxyz/based.cooking": "based.cooking recipes, by its contributors",
}  # fmt: skip


def listing(data: Path) -> str:
    barred = us_only(data) | HELD_BOOKS
    works: dict[str, dict[str, str]] = defaultdict(dict)
    for prefix in PROSE:
        for row in read_shards(data, prefix):
            if row["source"] not in barred:
                works[row["source"]][row["title"]] = row["license"]
    lines = [
        "# Texts that tunesmith-nano was trained on",
        "",
        "Changed by us: split, shortened, cleaned and turned into the chat format.",
        "",
        "## Conversations",
        "",
    ]
    lines += [f"- {name}, {who}. {terms}. {place}" for name, who, terms, place in CONVERSATIONS]
    lines += [
        "- Made samples (tool calls, JSON, labels, lists): written for this project.",
        "",
        "## Collections",
        "",
    ]
    for source, name in COLLECTIONS.items():
        terms = "; ".join(sorted(set(works.pop(source, {}).values())))
        lines.append(f"- {name}. {terms}. github.com/{source}")
    books = {s: rows for s, rows in works.items() if any("CC0" in t for t in rows.values())}
    lines += ["", "## Books (public domain; these editions CC0 1.0)", ""]
    for source, rows in sorted(books.items()):
        lines.append(f"- {next(iter(rows)).rsplit(' - ', 1)[0]}. github.com/{source}")
    for source, rows in sorted(works.items()):
        if source not in books:
            terms = "; ".join(sorted(set(rows.values())))
            lines += ["", f"## Stories of github.com/{source}", "", f"{terms}.", ""]
            lines += [f"- {title}" for title in sorted(rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()
    (ASSETS / "ATTRIBUTION.md").write_text(listing(args.data), encoding="utf-8")


if __name__ == "__main__":
    main()
