"""The style sheet of the report: one column, light and dark, no external resources."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d2430; --muted: #5c6675;
  --line: #e3e7ed; --panel: #f5f7fa; }
@media (prefers-color-scheme: dark) { :root { --paper: #161b22; --ink: #e4e9f0;
  --muted: #9aa5b4; --line: #2c343f; --panel: #1d242d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.8rem; margin: 0 0 .25rem; line-height: 1.2; }
h2 { font-size: 1.35rem; margin: 3rem 0 1rem; padding-top: 1.5rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2.25rem 0 .75rem; }
header p { margin: 0; color: var(--muted); overflow-wrap: anywhere; }
code { font: .9em ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.facts { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 0; }
.facts div { flex: 1 1 auto; min-width: 8rem; background: var(--panel); border-radius: .5rem;
  padding: .6rem .9rem; }
.facts dt { font-size: .8rem; color: var(--muted); }
.facts dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; color: var(--muted); font-size: .85rem; padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th, td:first-child { overflow-wrap: break-word; }
th { font-weight: 600; color: var(--muted); }
th[scope=row] { min-width: 9rem; font-weight: 400; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.pair { display: grid; gap: 1.5rem 2.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(22rem, 100%), 1fr)); }
figure { margin: 0; }
figure + .pair { margin-top: 1.5rem; }
.plot img { width: 100%; height: auto; display: block; }
figcaption { font-size: .85rem; color: var(--muted); }
.sheet { display: grid; gap: 1.1rem .9rem;
  grid-template-columns: repeat(auto-fill, minmax(8.75rem, 1fr)); }
.sheet img { width: 100%; height: auto; border-radius: .3rem; display: block;
  margin-bottom: .3rem; }
.sheet figcaption { line-height: 1.35; overflow-wrap: anywhere; }
.sheet strong { display: block; color: var(--ink); font-weight: 600; }
.sheet small { display: block; }
@media print { main { max-width: none; } .plot, .sheet figure { break-inside: avoid; } }
"""
