"""The look of the page: one sheet, light and dark, from a telephone's width to a desk's."""

__all__ = ["SHEET"]

SHEET = """
.lgr { --paper:#f5f6f8; --card:#fff; --ink:#18212c; --soft:#5d6a79; --rule:#e1e5ea; --rail:#aeb8c4; --tint:#eef1f5;
  --bar:#7f9cc4; --grid:#8fa0b4; --good:#0d8a68; --fair:#b86e00; --bad:#cf3345; --good-t:#e0f3ed; --fair-t:#fbeed9;
  --bad-t:#fbe3e6; color-scheme: light dark;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif;
  font-variant-numeric: tabular-nums; color: var(--ink); background: var(--paper); padding: 28px 24px 40px; }
@media (prefers-color-scheme: dark) { .lgr { --paper:#10151b; --card:#182029; --ink:#e5eaf0; --soft:#94a2b2; --rule:#2a343f;
  --rail:#536171; --tint:#202a35; --bar:#7f9fd0; --grid:#6d7f94; --good:#43c9a2; --fair:#eda94a; --bad:#ff7280;
  --good-t:#14352d; --fair-t:#3a2c14; --bad-t:#42202a; } }
.lgr *, .lgr *::before { box-sizing: border-box; }
.lgr > div { max-width: 1180px; margin: 0 auto; }
.lgr h1, .lgr h2 { font-weight: 650; letter-spacing: -.01em; margin: 0; line-height: 1.25; }
.lgr h1 { font-size: 24px; } .lgr h2 { font-size: 17px; margin: 34px 0 12px; }
.lgr p { margin: 0; overflow-wrap: anywhere; } .lgr small, .lgr .soft { color: var(--soft); font-size: 13px; }
.lgr code, .lgr pre { font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.lgr .good { --tone: var(--good); --tone-t: var(--good-t); } .lgr .fair { --tone: var(--fair); --tone-t: var(--fair-t); }
.lgr .bad { --tone: var(--bad); --tone-t: var(--bad-t); } .lgr .none { --tone: var(--soft); --tone-t: var(--tint); }
.lgr .card { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.lgr .head { display: flex; gap: 20px 36px; align-items: center; flex-wrap: wrap; justify-content: space-between; }
.lgr .total { display: flex; align-items: baseline; gap: 10px; } .lgr .total b { font-size: 42px; font-weight: 650;
  letter-spacing: -.03em; line-height: 1; color: var(--tone); }
.lgr .finding { display: grid; grid-template-columns: 34px 1fr auto; gap: 4px 12px; padding: 16px 18px; margin-top: 10px; }
.lgr .finding > * { grid-column: 2 / 4; } .lgr .finding > .rank { grid-column: 1; grid-row: 1 / span 3; }
.lgr .finding > .title { grid-column: 2; } .lgr .finding > .cost { grid-column: 3; text-align: right; white-space: nowrap; }
.lgr .rank { width: 30px; height: 30px; border-radius: 50%; display: grid; place-items: center; font-weight: 650;
  background: var(--tone-t); color: var(--tone); }
.lgr .title { display: flex; gap: 4px 10px; flex-wrap: wrap; align-items: center; min-width: 0; }
.lgr .title b { overflow-wrap: anywhere; } .lgr .chip { font-size: 12.5px; font-weight: 600; padding: 1px 9px;
  border-radius: 99px; background: var(--tone-t); color: var(--tone); white-space: nowrap; }
.lgr .helps { display: flex; gap: 4px 10px; flex-wrap: wrap; align-items: baseline; margin-top: 4px; }
.lgr .helps code { background: var(--tint); border-radius: 5px; padding: 2px 7px; overflow-wrap: anywhere; }
.lgr .gain { color: var(--good); font-weight: 600; white-space: nowrap; }
.lgr pre { margin: 0; padding: 14px 18px; overflow-x: auto; }
.lgr .net { overflow: hidden; }
.lgr .row { border-top: 1px solid var(--rule); } .lgr .row:first-of-type { border-top: 0; }
.lgr .line { display: grid; grid-template-columns: minmax(150px, 1.5fr) minmax(180px, 1.3fr) 132px 96px minmax(150px, 1fr);
  gap: 6px 20px; align-items: center;
  padding: 10px 18px 10px calc(var(--lanes) + 14px); min-height: 64px; list-style: none; position: relative; }
.lgr summary.line { cursor: pointer; } .lgr summary::-webkit-details-marker { display: none; }
.lgr summary.line:hover { background: var(--tint); }
.lgr summary:focus-visible { outline: 2px solid var(--bar); outline-offset: -2px; }
.lgr .labels { min-height: 0; padding-block: 8px; font-size: 12.5px; color: var(--soft); border-bottom: 1px solid var(--rule); }
.lgr .rails { position: absolute; left: 8px; top: 0; height: 100%; width: var(--lanes); pointer-events: none; }
.lgr .rails line { stroke: var(--rail); stroke-width: 2; stroke-linecap: round; }
.lgr .rails circle.none { --tone: var(--rail); } .lgr .rails circle { fill: var(--tone); stroke: var(--card); stroke-width: 2; }
.lgr .end { min-height: 40px; padding-block: 6px; }
.lgr .who { min-width: 0; } .lgr .who b { display: block; font-weight: 600; overflow-wrap: anywhere; line-height: 1.3; }
.lgr .meters { display: grid; grid-template-columns: 42px 1fr 46px; gap: 1px 8px; align-items: center; font-size: 13px; }
.lgr .meters span { color: var(--soft); } .lgr .meters b { font-weight: 550; text-align: right; }
.lgr .meter { height: 6px; border-radius: 3px; background: var(--tint); overflow: hidden; }
.lgr .meter i { display: block; height: 100%; border-radius: 3px; background: var(--tone); }
.lgr .pair { display: grid; align-content: start; grid-template-columns: auto auto; gap: 0 10px;
  justify-content: space-between; font-size: 13px; }
.lgr .pair span { color: var(--soft); } .lgr .pair b { font-weight: 550; text-align: right; }
.lgr .pair b.hot { color: var(--bad); }
.lgr .hist { display: block; width: 100%; height: 44px; } .lgr .hist .bars { fill: var(--bar); }
.lgr .hist .grid { stroke: var(--grid); stroke-width: 1; opacity: .34; vector-effect: non-scaling-stroke; fill: none; }
.lgr .hist .over { fill: var(--bad); opacity: .13; } .lgr .hist .reach { stroke: var(--bad); stroke-width: 1.5;
  vector-effect: non-scaling-stroke; fill: none; } .lgr .hist .base { stroke: var(--rule); vector-effect: non-scaling-stroke; }
.lgr .more { display: grid; grid-template-columns: minmax(0, 1.6fr) minmax(240px, 1fr); gap: 14px 28px;
  padding: 4px 18px 18px calc(var(--lanes) + 14px); position: relative; }
.lgr .more .hist { height: 150px; } .lgr .axis { display: flex; justify-content: space-between; }
.lgr .legend { display: grid; gap: 6px; margin-top: 14px; max-width: 84ch; }
@media (max-width: 860px) { .lgr { padding: 18px 12px 28px; } .lgr .labels { display: none; }
  .lgr .line { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 8px 16px; padding-right: 14px; }
  .lgr .who, .lgr .line > .meters { grid-column: 1 / 3; } .lgr .line > .drawn { grid-column: 1 / 3; }
  .lgr .more { grid-template-columns: minmax(0, 1fr); } .lgr .finding { grid-template-columns: 30px minmax(0, 1fr);
  padding: 14px; } .lgr .finding > .cost { grid-column: 2; text-align: left; } .lgr .finding > * { grid-column: 2; }
  .lgr .rank { width: 26px; height: 26px; } .lgr h1 { font-size: 21px; } }
"""
