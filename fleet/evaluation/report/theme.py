# SPDX-License-Identifier: Apache-2.0
"""The look of the page, light and dark."""

from __future__ import annotations

from typing import Final

CSS: Final = """\
:root{color-scheme:light dark;--ink:#1b1f24;--muted:#57606a;--line:#dfe3e8;--surface:#fff;--raised:#f6f8fa;
--link:#0b57d0;
--good:#116329;--fair:#7a4f01;--bad:#a40e26}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaed;--muted:#a0a8b2;--line:#333a42;--surface:#14171a;
--raised:#1d2126;
--link:#8ab4f8;--good:#7ee2a0;--fair:#f0c674;--bad:#ff9a94}}
*{box-sizing:border-box}
html{scroll-padding-top:1rem}
body{margin:0;background:var(--surface);color:var(--ink);font:16px/1.55 system-ui,"Segoe UI",Helvetica,Arial,sans-serif;
display:grid;grid-template-columns:15rem minmax(0,1fr)}
nav{position:sticky;top:0;align-self:start;height:100vh;overflow:auto;padding:1.6rem 1.2rem;
border-right:1px solid var(--line);
font-size:.875rem}
nav p{font-weight:650;margin:0 0 .8rem}
nav ol{list-style:none;margin:0;padding:0}
nav li{margin:.1rem 0}
nav a{display:block;padding:.22rem .5rem;margin:0 -.5rem;border-radius:4px;color:var(--ink);text-decoration:none}
nav a:hover,nav a:focus-visible{background:var(--raised);color:var(--link)}
main{padding:2rem clamp(1rem,4vw,3.5rem) 5rem;max-width:92rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .8rem;letter-spacing:-.01em}
h2{font-size:1.35rem;line-height:1.3;margin:3.2rem 0 1rem;padding-top:1.2rem;border-top:1px solid var(--line)}
p,ul{max-width:74ch}
a{color:var(--link)}
a:focus-visible,[tabindex]:focus-visible,summary:focus-visible{outline:2px solid var(--link);outline-offset:2px}
code,pre{font:0.875em/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{background:var(--raised);border-radius:3px;padding:.08em .3em}
pre{background:var(--raised);border-radius:6px;padding:.7rem .9rem;overflow-x:auto;margin:.4rem 0 0}
pre code{background:none;padding:0}
.skip{position:absolute;left:-999px}
.skip:focus{left:1rem;top:1rem;background:var(--surface);padding:.5rem;z-index:1}
.table{margin:1.6rem 0 2.2rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.875rem;line-height:1.4;font-variant-numeric:tabular-nums;min-width:36rem}
caption{text-align:left;font-weight:600;font-size:.95rem;padding:0 0 .5rem;max-width:80ch}
th,td{text-align:left;vertical-align:top;padding:.42rem 1.1rem .42rem 0;border-bottom:1px solid var(--line)}
thead th{border-bottom:1.5px solid var(--muted);color:var(--muted);font-weight:600;vertical-align:bottom}
tbody th{font-weight:550;min-width:9rem}
tbody th .note{max-width:15rem}
.n{text-align:right}
tbody tr:hover{background:var(--raised)}
.note{display:block;color:var(--muted);font-weight:400;font-size:.8125rem}
.small{color:var(--muted);font-size:.8125rem;line-height:1.5;margin:.5rem 0 0;max-width:100ch}
ul.small{padding-left:1.1rem}
.good{color:var(--good);font-weight:600}
.fair{color:var(--fair);font-weight:600}
.bad{color:var(--bad);font-weight:600}
.quiet{color:var(--muted)}
.missing{border-left:3px solid var(--muted);padding:.1rem 0 .3rem .9rem;margin:1.2rem 0;max-width:80ch}
.missing p{margin:.3rem 0}
details{margin:.4rem 0}
summary{cursor:pointer;font-weight:600;font-size:.95rem;padding:.2rem 0}
details caption{display:none}
figure{margin:1.8rem 0 2.4rem;max-width:64rem}
.drawing svg{width:100%;height:auto;display:block}
figcaption{margin-top:.5rem;max-width:100ch}
figcaption>.small{margin-top:.3rem}
@media (max-width:60rem){body{display:block}nav{position:static;height:auto;border-right:0;
border-bottom:1px solid var(--line)}
nav ol{columns:2}}
@media print{nav,.skip{display:none}body{display:block}details>*{display:block}}
"""
