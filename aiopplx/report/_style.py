"""How a report looks: one style sheet for the desk, the phone and paper, light and dark.

Calm is the normal state: hairlines and no boxes, colour only where something needs a look. Text has the contrast of
print (at least 5.5 to 1). Fonts are the reader's own, so nothing is loaded. This module knows nothing of what is shown.
"""

from __future__ import annotations

_SERIF = 'Charter, "Iowan Old Style", "Source Serif 4", "Noto Serif", Palatino, Georgia, serif'
_SANS = 'system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif'
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"

STYLE = f"""
:root {{ color-scheme: light dark; --ground: #fcfbf8; --ink: #1f1e1b; --quiet: #6a665e; --line: #e4e0d6;
  --tint: #f3f0e8; --link: #1b5e78; --failed: #a3302b; --doubt: #85580a; --target: #fdf1c7; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ground: #17181a; --ink: #e4e1d9; --quiet: #9d998f; --line: #2f3135;
  --tint: #1f2124; --link: #86c5dc; --failed: #ef938c; --doubt: #dfb35c; --target: #3b3414; }} }}
* {{ box-sizing: border-box; }}
html {{ -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }}
body {{ margin: 0; background: var(--ground); color: var(--ink); font: 17px/1.6 {_SERIF}; }}
main {{ max-width: 46rem; margin: 0 auto; padding: 3rem 2rem 4rem; overflow-wrap: break-word; }}
a {{ color: var(--link); text-underline-offset: .18em;
  text-decoration: underline 1px color-mix(in srgb, currentColor 40%, transparent); }}
h1, h2, h3, h4, h5, h6 {{ line-height: 1.22; text-wrap: balance; margin: 1.9em 0 .5em; font-weight: 600; }}
h1 {{ font-size: 2.1rem; margin: 0 0 .35em; }}
h2 {{ font-size: 1.6rem; margin: .1em 0 .35em; }}
.answer h3 {{ font-size: 1.3rem; }} .answer h4 {{ font-size: 1.12rem; }}
.answer h5, .answer h6 {{ font-size: 1rem; }}
p, ul, ol, blockquote, pre, .wide {{ margin: 0 0 1.05em; }}
li > p {{ margin-bottom: .4em; }} li > ul, li > ol {{ margin: .2em 0 .4em; }}
.ui, nav, .band, .look, .contents, .facts, .columns, .note, .sources, details, footer, .wide {{ font-family: {_SANS}; }}
.small, .facts {{ color: var(--quiet); font-size: .875rem; margin: 0; }}
.label {{ color: var(--quiet); font: 600 .8rem/1.4 {_SANS}; margin: 2.6rem 0 .5rem; }}
.band {{ display: flex; flex-wrap: wrap; gap: .9rem 2rem; margin: 2rem 0 0; padding: 1.1rem 0;
  border: solid var(--line); border-width: 1px 0; font-variant-numeric: tabular-nums; }}
.band div b {{ display: block; font-size: 1.3rem; font-weight: 500; line-height: 1.3; }}
.band div span, .band small {{ color: var(--quiet); font-size: .8rem; font-weight: 400; }}
.look {{ list-style: none; padding: 0; font-size: .9rem; }}
.look li, .contents li {{ display: grid; grid-template-columns: 1.9rem minmax(0, 1fr); }}
.look li {{ margin: .25rem 0; }} .look b {{ font-weight: 600; margin-right: .5em; }}
.failed {{ color: var(--failed); }} .doubt {{ color: var(--doubt); }}
.contents {{ list-style: none; padding: 0; font-size: .9rem; border-top: 1px solid var(--line); }}
.contents li {{ padding: .55rem 0; border-bottom: 1px solid var(--line);
  grid-template-columns: 1.9rem minmax(0, 1fr) 7rem 5rem; font-variant-numeric: tabular-nums; }}
.contents .n, .contents .fact {{ color: var(--quiet); }} .contents .fact {{ text-align: right; font-size: .85rem; }}
.contents .fact.failed {{ color: var(--failed); }} .contents .fact.doubt {{ color: var(--doubt); }}
.contents a, nav a {{ color: inherit; text-decoration: none; display: -webkit-box; -webkit-box-orient: vertical;
  -webkit-line-clamp: 2; overflow: hidden; }}
.contents a:hover, nav a:hover {{ text-decoration: underline; }}
article {{ margin-top: 4.5rem; padding-top: 2.2rem; border-top: 1px solid var(--line);
  content-visibility: auto; contain-intrinsic-size: auto 60rem; }}
article.bare {{ margin-top: 2rem; }}
.facts + article {{ margin-top: 1rem; padding-top: 0; border-top: 0; }}
.facts span:not(:last-child)::after {{ content: "\\00a0\\00b7\\00a0"; }}
.columns {{ display: flex; flex-wrap: wrap; gap: .5rem 1.6rem; margin: 1rem 0 0; font-size: .875rem; }}
.columns dt {{ color: var(--quiet); font-size: .76rem; }} .columns dd {{ margin: 0; white-space: pre-wrap; }}
.columns div {{ min-width: 0; overflow-wrap: anywhere; }}
.note {{ margin: 1rem 0 0; padding-left: .8rem; border-left: 2px solid; font-size: .9rem; }}
.answer {{ margin-top: 1.6rem; }}
.answer > :first-child {{ margin-top: 0; }}
blockquote {{ padding-left: 1rem; border-left: 2px solid var(--line); color: var(--quiet); margin-left: 0; }}
hr {{ border: 0; border-top: 1px solid var(--line); margin: 2em 0; }}
code, pre {{ font-family: {_MONO}; font-size: .85em; }}
code {{ background: var(--tint); padding: .1em .25em; border-radius: 3px; }}
pre {{ background: var(--tint); padding: .8rem 1rem; overflow-x: auto; line-height: 1.45; }}
pre code {{ background: none; padding: 0; }}
pre.plain {{ white-space: pre-wrap; background: none; padding: 0; font-family: inherit; font-size: inherit; }}
.wide {{ overflow-x: auto; font-size: .85rem; line-height: 1.45;
  background: linear-gradient(to right, var(--ground) 30%, transparent) left / 2rem 100% no-repeat local,
    linear-gradient(to left, var(--ground) 30%, transparent) right / 2rem 100% no-repeat local,
    linear-gradient(to right, var(--line), transparent) left / .5rem 100% no-repeat scroll,
    linear-gradient(to left, var(--line), transparent) right / .5rem 100% no-repeat scroll; }}
.wide table {{ border-collapse: collapse; min-width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .5rem 1rem .5rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  min-width: 5.5rem; }}
th {{ color: var(--quiet); font-weight: 600; vertical-align: bottom; border-bottom-color: var(--quiet); }}
sup.marks {{ font: .7em/0 {_SANS}; vertical-align: baseline; position: relative; top: -.45em; margin-left: .15em;
  white-space: nowrap; }}
sup.marks a {{ text-decoration: none; padding: 0 .08em; }} .lost {{ color: var(--doubt); }}
.sources {{ padding-left: 0; list-style: none; font-size: .875rem; margin: 0; }}
.sources li {{ display: grid; grid-template-columns: 1.9rem minmax(0, 1fr); padding: .35rem 0;
  scroll-margin-top: 2rem; }}
.sources .n, .sources small {{ color: var(--quiet); }} .sources small {{ font-size: .8rem; display: block; }}
.sources .paper {{ display: none; }}
:target {{ background: var(--target); }} article:target {{ background: none; }}
details {{ margin-top: 1rem; font-size: .875rem; }} summary {{ color: var(--quiet); cursor: pointer; }}
details div, details dl {{ margin: .6rem 0 0; white-space: pre-wrap; color: var(--quiet); }}
details dl {{ display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .2rem 1rem; }}
details dd {{ margin: 0; }}
.back {{ margin: 1.6rem 0 0; font: .85rem {_SANS}; }}
nav {{ display: none; }}
footer {{ margin-top: 4.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--quiet);
  font-size: .85rem; }}
@media (min-width: 72rem) {{
  nav {{ display: block; position: fixed; inset: 0 auto 0 0; width: 17rem; overflow-y: auto;
    padding: 3.2rem 1rem 2rem 1.5rem; border-right: 1px solid var(--line); font-size: .8rem; line-height: 1.45;
    overflow-wrap: break-word; }}
  nav b {{ display: block; margin-bottom: 1rem; }}
  nav ol {{ list-style: none; margin: 0; padding: 0; color: var(--quiet); }}
  nav li {{ display: grid; grid-template-columns: 1.7rem minmax(0, 1fr); margin-bottom: .65rem; }}
  .listed {{ padding-left: 17rem; }}
  .listed .back {{ display: none; }}
}}
@media (max-width: 34rem) {{
  body {{ font-size: 16.5px; }} main {{ padding: 2rem 1.25rem 3rem; }}
  h1 {{ font-size: 1.65rem; }} h2 {{ font-size: 1.32rem; }}
  .contents li {{ grid-template-columns: 1.9rem auto auto 1fr; }}
  .contents a {{ grid-column: 2 / -1; }}
  .contents .fact {{ grid-row: 2; grid-column: 2; text-align: left; margin-right: 1rem; }}
  .contents .fact + .fact {{ grid-column: 3; }}
}}
@media print {{
  :root {{ --ground: #fff; --ink: #000; --quiet: #444; --line: #bbb; --tint: #f4f4f4; --link: #000; --failed: #7a1f1b;
    --doubt: #5c3c05; --target: #fff; }}
  html {{ font-size: 10pt; }} body, .listed {{ padding: 0; font-size: 10.5pt; }} main {{ max-width: none; padding: 0; }}
  nav, .back, .up span {{ display: none; }} .up {{ color: inherit; }}
  article {{ break-before: page; border: 0; margin: 0; padding: 0; content-visibility: visible; }}
  article.bare {{ break-before: auto; break-inside: avoid; margin-top: 2rem; }}
  tr, .sources li, .note, .contents li, .look li {{ break-inside: avoid; }}
  h2, h3, h4, h5, h6, .label {{ break-after: avoid; }} p, li {{ orphans: 2; widows: 2; }}
  pre {{ white-space: pre-wrap; overflow: visible; }}
  a {{ text-decoration: none; }} .sources .paper {{ display: block; overflow-wrap: anywhere; font-size: 8pt; }}
  .wide {{ background: none; overflow: visible; }}
  details:not([open]) {{ display: none; }}
}}
@page {{ margin: 2cm; @bottom-right {{ content: counter(page); font: 8pt {_SANS}; }} }}
""".strip()
