"""How the page looks: one style sheet, light and dark, no fonts or pictures from elsewhere."""

from metaagentx.report.graph import STYLE as GRAPH_STYLE

STYLE = (
    """
:root{color-scheme:light dark;--paper:#fff;--panel:#f6f7f9;--ink:#1c2430;--soft:#5f6b7c;--rule:#dfe3e9;--accent:#0f5fb8;
--good:#18794e;--bad:#b42318;--c0:#2563c9;--c1:#e07b12;--c2:#139a8b;--c3:#c7429a;--c4:#5aa02c;--c5:#7a4bc4;
--c6:#8a93a3;--c7:#c9372c;
--cold:#8a93a322;--follow:#e07b1218;--lead:#7a4bc418;--joint:#139a8b18}
@media (prefers-color-scheme:dark){:root{--paper:#12161c;--panel:#1a2028;--ink:#e6e9ee;--soft:#9aa5b5;--rule:#2d3540;
--accent:#7db7ff;
--good:#5fd39a;--bad:#ff8a7d;--c0:#6aa5ff;--c1:#ffa94d;--c2:#3fcfbd;--c3:#f07cc4;--c4:#94d66a;--c5:#bb98f5;
--c6:#7d8797;--c7:#ff7b6e;
--cold:#8a93a326;--follow:#e07b1226;--lead:#7a4bc433;--joint:#139a8b2b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:15px/1.5 ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:34px 28px 80px}
h1{font-size:27px;line-height:1.2;margin:0 0 4px;letter-spacing:-.01em}
h2{font-size:19px;margin:46px 0 4px;padding-top:14px;border-top:1px solid var(--rule)}
h3{font-size:15px;margin:22px 0 6px}
p{margin:4px 0 14px;max-width:96ch}
.soft,.note{color:var(--soft)}
.note{font-size:14px}
.chips{list-style:none;display:flex;flex-wrap:wrap;gap:6px;margin:14px 0 0;padding:0;font-size:13px}
.chips li{background:var(--panel);border:1px solid var(--rule);border-radius:99px;padding:1px 11px}
.chips b{font-weight:600}
.stats{display:flex;flex-wrap:wrap;gap:14px;margin:22px 0 0}
.stats div{background:var(--panel);border-radius:10px;padding:12px 18px;min-width:150px}
.stats b{display:block;font-size:27px;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.stats span{color:var(--soft);font-size:13.5px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14.5px}
th,td{padding:7px 12px 7px 0;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{font-weight:500;color:var(--soft);font-size:13px;line-height:1.3;vertical-align:bottom;white-space:normal}
th:first-child,td:first-child{text-align:left}
tr.best td{font-weight:650}
table.wide{width:100%}
td svg{display:block}
.whisker line{stroke:var(--ink);stroke-width:1.6}
.whisker circle{fill:var(--c0)}
.whisker .rail{stroke:var(--rule);stroke-width:1}
.cross{display:flex;flex-wrap:wrap;gap:44px;align-items:center}
.cross td.cell{text-align:center;font-size:18px;padding:14px 26px;border:1px solid var(--rule)}
.cross th{text-align:center;padding:6px 12px;border:0}
.cross th.row{text-align:right;vertical-align:middle}
.split{flex:1;min-width:290px}
.bar{display:flex;height:26px;border-radius:6px;overflow:hidden;margin:6px 0 8px;background:var(--panel)}
.bar i{display:block;min-width:2px}
.bg0{background:var(--c0)}.bg1{background:var(--c1)}.bg2{background:var(--c2)}.bg3{background:var(--c3)}
.bg4{background:var(--c4)}
.bg5{background:var(--c5)}.bg6{background:var(--c6)}.bg7{background:var(--c7)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(480px,100%),1fr));gap:26px 34px;margin-top:14px}
.grid.three{grid-template-columns:repeat(auto-fit,minmax(min(330px,100%),1fr));gap:20px 26px}
figure{margin:0;min-width:0}
figcaption{font-weight:600;font-size:14.5px;display:flex;flex-wrap:wrap;gap:2px 18px;align-items:baseline;
margin-bottom:2px;overflow-wrap:anywhere}
.three figcaption{font-size:13px}
.key{list-style:none;display:flex;flex-wrap:wrap;gap:1px 13px;margin:0;padding:0;font-size:13px;font-weight:400;
color:var(--soft)}
.key i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:5px;vertical-align:-1px}
svg.plot{display:block;width:100%;height:auto}
svg.plot text{font-size:11.5px;fill:var(--soft);font-variant-numeric:tabular-nums}
.ytick{text-anchor:end}.xtick,.phasename{text-anchor:middle}
svg.plot rect.phase{fill:var(--joint)}
svg.plot rect.cold{fill:var(--cold)}svg.plot rect.follow{fill:var(--follow)}svg.plot rect.lead{fill:var(--lead)}
.key i.phase{width:20px;background:var(--joint);outline:1px solid var(--rule)}.key i.cold{background:var(--cold)}
.key i.follow{background:var(--follow)}.key i.lead{background:var(--lead)}
.plot .grid{stroke:var(--rule);stroke-width:1}.plot .axis,.plot .tick{stroke:var(--soft);stroke-width:1}
.plot .border{stroke:var(--paper);stroke-width:1.5;stroke-opacity:.75}
.plot .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.plot .thin{stroke-width:1.4}.plot .faint{stroke-width:1;stroke-opacity:.32}
"""
    + "".join(
        f".line.c{i}{{stroke:var(--c{i})}}.dot.c{i},.area.c{i}{{fill:var(--c{i})}}"
        f".key i.c{i}{{background:var(--c{i})}}\n"
        for i in range(8)
    )
    + """
.plot .area{fill-opacity:.82}
.designs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:14px 44px}
.designs ol{list-style:none;margin:0;padding:0;font-size:14px}
.designs li{display:grid;grid-template-columns:minmax(0,1fr) 110px 44px 80px;gap:10px;align-items:center;padding:3px 0}
.designs li>*{white-space:nowrap}
.designs .name{font-family:ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;font-size:12.5px;
overflow:hidden;text-overflow:ellipsis}
.designs .track{background:var(--panel);height:10px;border-radius:3px;overflow:hidden}
.designs .track i{display:block;height:100%;background:var(--c0)}
.designs em{font-style:normal;text-align:right;color:var(--soft);font-variant-numeric:tabular-nums;font-size:13px}
details{border:1px solid var(--rule);border-radius:9px;margin:9px 0;background:var(--paper)}
details>summary{cursor:pointer;padding:8px 14px;list-style:none;display:flex;flex-wrap:wrap;gap:4px 12px;
align-items:baseline}
details>summary::-webkit-details-marker{display:none}
details>summary::before{content:"▸";color:var(--soft);width:.8em}
details[open]>summary::before{content:"▾"}
details>.body{padding:2px 16px 14px;border-top:1px solid var(--rule)}
.episode>summary{background:var(--panel);border-radius:9px}
.episode>summary .q{flex:1;min-width:200px;overflow-wrap:anywhere}
.tag{font-size:12.5px;border-radius:5px;padding:1px 8px;background:var(--panel);border:1px solid var(--rule);
white-space:nowrap}
.num{font-variant-numeric:tabular-nums;white-space:nowrap;font-size:13.5px;color:var(--soft)}
.good{color:var(--good)}.bad{color:var(--bad)}
.design-part{margin:16px 0 20px;padding-left:14px;border-left:3px solid var(--rule)}
.design-part>header{display:flex;flex-wrap:wrap;gap:4px 14px;align-items:baseline;margin-bottom:6px}
.errand>summary .q{flex:1;min-width:120px;overflow-wrap:anywhere}
.errand{border-left:3px solid var(--c5)}
.drawing{overflow-x:auto;padding:6px 0}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:3px 0 10px;padding:8px 12px;background:var(--panel);
border-radius:7px;
font:12.8px/1.5 ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace}
pre.reply{border-left:3px solid var(--c0)}
pre.tool{border-left:3px solid var(--c4)}
.who{font-size:12.5px;color:var(--soft);margin-top:8px}
.who b{color:var(--ink)}
.diagnosis{color:var(--bad);margin:4px 0}
footer{margin-top:60px;color:var(--soft);font-size:13px}
@media (max-width:600px){main{padding:22px 14px 60px}}
@media print{details{break-inside:avoid}}
"""
    + GRAPH_STYLE
)
