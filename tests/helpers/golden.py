"""The golden cache of ``tests/golden``: made up, committed, and never written again.

    python tests/helpers/golden.py FOLDER

writes such a cache with the present code. It is equal to the committed one only as long as the
format, pyarrow's writer and the made-up numbers stay the same; the tests rely on the committed one.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from helpers.caches import CAPACITY, Corpus, make_teacher, open_writer, run_task

GOLDEN = Path(__file__).parents[1] / "golden" / "cache-v2"

CORPUS = Corpus(
    frames={"short": 3, "long": 70, "lost": 2, "bad": 4},
    broken=frozenset({"bad"}),
)
FIRST = make_teacher("half", classes=3)
ADDED = (
    make_teacher("byte", classes=3, encoding="int8"),
    make_teacher("best", classes=5, encoding="topk:2"),
    make_teacher("body", classes=2, target="features"),
)
LOST = CORPUS.id_of("lost")
"""The video that was gone when the other teachers were added: they have no targets for it."""


def write_golden(root: Path) -> None:
    """Write the cache: one teacher sees all videos, then one is lost, and three are added."""
    for teachers in ((FIRST,), (FIRST, *ADDED)):
        with open_writer(root, CORPUS, teachers, unit_rows=CAPACITY) as writer:
            if len(teachers) > 1:
                latest = dict(writer.plan.latest)
                latest[LOST] = replace(latest[LOST], in_corpus=False)
                writer.set_corpus(latest, {LOST})
            for spec in writer.pending_groups():
                run_task(spec, CORPUS)
            writer.finalise()


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
