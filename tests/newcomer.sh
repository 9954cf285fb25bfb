#!/usr/bin/env bash
# Types the commands of README.md, in their order, on a few clips from Python packages, and fails at
# the first one that does not do what the README says.
#
#   tests/newcomer.sh           a few clips, with the settings that the README offers for a first try
#   tests/newcomer.sh --times   all clips and the default settings: the seconds in the README
#
# The commands are read from README.md: the code blocks after <!-- newcomer: ... -->. They name the
# folders VIDEOS, LABELLED, CACHE ..., which lie in a temporary folder here.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
full=false
if [ "${1:-}" = --times ]; then
  full=true
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export XDG_CACHE_HOME="$work/.cache"

fail() {
  echo "newcomer: $*" >&2
  exit 1
}

# The code block of README.md that follows <!-- newcomer: NAME -->.
block() {
  awk -v marker="<!-- newcomer: $1 -->" '
    $0 == marker { found = 1; next }
    found && /^```/ { if (inside) exit; inside = 1; next }
    found && inside
  ' "$root/README.md" > "block"
  [ -s block ] || fail "README.md has no block <!-- newcomer: $1 -->"
  cat block
}

# What the README offers for a first try, only with a few clips.
first_try() {
  grep -qF 'add `--epochs 1` to `distill` and `finetune`' "$root/README.md" \
    || fail "README.md offers no settings for a first try"
  case "$1" in
    *"distinit distill "* | *"distinit finetune "*) $full || echo "--epochs 1" ;;
  esac
}

# The files that a command of the README must have written.
outcome() {
  case "$1" in
    "distinit extract "*) echo CACHE/manifest.json CACHE/README.md CACHE/videos.parquet FRAMES/store.json ;;
    "distinit audit "*) echo REPORT/report.html REPORT/audit.json REPORT/efficientnet_lite0-most-confident.png ;;
    "distinit distill "*) echo RUN/result.json RUN/student.safetensors RUN/loss.png RUN/tensorboard ;;
    *"--init scratch"*) echo SCRATCH/result.json SCRATCH/student.safetensors ;;
    "distinit finetune "*) echo RESULT/result.json RESULT/student.safetensors RESULT/confusion.png ;;
    "distinit evaluate "*) echo RESULT/result-dense-s8.json RESULT/scores-dense-s8.parquet ;;
    "distinit figures gain "*) echo FIGURES/gain.png FIGURES/gain.pdf ;;
    "distinit runs "* | "distinit doctor") ;;
    *) fail "no expectation for: $1" ;;
  esac
}

# Run one line, and check its exit code and its files.
type_line() {
  local line=$1 expected file
  local TIMEFORMAT="%R seconds, %U + %S of CPU time"
  expected=$(outcome "$(echo "$line" | tr -s ' ')")
  echo "\$ $line $(first_try "$line")"
  { time bash -c "$line $(first_try "$line")" > output 2>&1; } 2> seconds || {
    cat output >&2
    fail "an exit code other than 0 of: $line"
  }
  for file in $expected; do
    [ -e "$file" ] || fail "$line did not write $file"
  done
  echo "  $(cat seconds)"
}

# The first lines set up the clone; CI has run them, so that here only their targets are checked.
install() {
  local line
  while read -r line; do
    case "$line" in
      "make "*) make -C "$root" -n ${line#make } > /dev/null || fail "make has no target: $line" ;;
      "source "*) cd "$root" && eval "$line" && cd "$work" ;;
      *) type_line "$line" ;;
    esac
  done < <(block install)
}

footage() {
  python - "$1" << 'PYTHON'
import sys
from pathlib import Path

from distinit.pipeline.demo.footage import make_corpus
from distinit.pipeline.demo.recipe import demo_clips

few = sys.argv[1] == "false"
clips = [
    clip
    for clip in demo_clips()
    if not few
    or (clip.split == "corpus" and clip.path.startswith("corpus/bikes"))
    or (clip.split != "corpus" and clip.motion in ("pan", "rotate") and clip.source in ("brick", "camera", "coins"))
]
make_corpus(Path("footage"), clips=clips)
Path("footage/corpus").rename("VIDEOS")
Path("footage/motion").rename("LABELLED")
PYTHON
}

install
footage "$full"
while read -r line; do type_line "$line"; done < <(block "own videos")
while read -r line; do type_line "$line"; done < <(block next)
block python > example.py
python example.py > output || fail "the Python example"
videos=$(find LABELLED/test -name '*.mp4' | wc -l)
grep -qF "one feature vector per video: ($videos, 128)" output || fail "the Python example printed: $(cat output)"
echo "newcomer: every command of README.md did what it says"
