"""Style and script of the report pages: readable on a phone and on paper; tables sort. Nothing is loaded from elsewhere."""

STYLE = """
:root { color-scheme: light; --line: #d5d9de; --soft: #f5f7f9; --ink: #1c2126; --blue: #0060a0; --warn: #fff4d6;
  --grey: #4a535c; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 0.75rem; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem 1.25rem 4rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 0.25rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 0.5rem; padding-top: 0.4rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4rem 0 0.3rem; }
a { color: var(--blue); }
.scale { margin: 1rem 0; padding: 0.8rem 1rem; border-left: 6px solid #e69f00; background: var(--warn);
  font-size: 1.05rem; font-weight: 600; }
.facts { margin: 1rem 0; padding: 0.7rem 1rem; background: var(--soft); border-radius: 6px; font-size: 0.95rem; }
.facts dl { margin: 0; }
.note, figcaption { color: var(--grey); font-size: 0.92rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.3rem 1.2rem; margin: 0.6rem 0; padding: 0; list-style: none; }
.table { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: 0.75rem 0; font-size: 0.93rem; }
th, td { padding: 0.4rem 0.6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { border-bottom: 2px solid var(--ink); vertical-align: bottom; }
li, p, figcaption { overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th.number { white-space: normal; }
.whole { white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:hover { color: var(--blue); }
th button:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
th[aria-sort] button { color: var(--blue); }
th[aria-sort=ascending] button::after { content: " \\25B2"; font-size: 0.7em; }
th[aria-sort=descending] button::after { content: " \\25BC"; font-size: 0.7em; }
label.sort { display: none; color: var(--grey); font-size: 0.92rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.25rem 1rem; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1.2rem 0 1.8rem; }
figure.wide .picture { overflow-x: auto; }
img { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: 0.4rem; }
pre, code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 0.82rem; overflow-wrap: anywhere; }
pre { background: var(--soft); padding: 0.7rem; overflow-x: auto; white-space: pre-wrap; }
details { margin: 0.35rem 0; }
summary { cursor: pointer; }
details.code > summary { color: var(--grey); font-size: 0.85rem; }
.claims { list-style: none; margin: 1rem 0; padding: 0; display: grid; gap: 0.7rem; }
.claims li { border: 1px solid var(--line); border-left: 6px solid #888888; border-radius: 6px; padding: 0.6rem 0.9rem; }
.claims p { margin: 0.15rem 0; }
.claims .verdict { font-weight: 700; }
.claims .claim { font-size: 1.02rem; }
.claims li.supported { border-left-color: #0072b2; }
.claims li.contradicted { border-left-color: #d55e00; }
.claims li.on-par, .claims li.undecided { border-left-color: #e69f00; }
@media screen and (max-width: 44rem) {
  body { padding: 0.5rem 0.8rem 3rem; }
  h1 { font-size: 1.35rem; }
  .table table, .table tbody, .table tr, .table td { display: block; width: 100%; }
  .table thead { display: none; }
  .table tr { border: 1px solid var(--line); border-radius: 6px; margin: 0.6rem 0; padding: 0.3rem 0.6rem; }
  .table td, .table td.number { display: flex; justify-content: space-between; gap: 1rem; text-align: right; border: 0;
    padding: 0.15rem 0; white-space: normal; }
  .table td::before { content: attr(data-label); font-weight: 600; text-align: left; flex: 0 0 auto; max-width: 50%; }
  .table td.absent { display: none; }
  /* The first cell names the row: it is the head of the card. */
  .table td:first-child:not(.number) { display: block; text-align: left; font-weight: 700; }
  .table td:first-child:not(.number)::before { content: none; }
  label.sort { display: block; }
  dl { grid-template-columns: 1fr; }
  dt { margin-top: 0.4rem; }
  /* A figure of many panels would be too small to read: it keeps a width and is moved under a finger. */
  figure.wide img { max-width: none; width: 46rem; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav, details.code, label.sort { display: none; }
  th button::after { content: none !important; }
  .scale { border: 2px solid #000; background: none; }
  .facts { border: 1px solid #000; background: none; }
  a { color: inherit; text-decoration: none; }
  .table { overflow: visible; }
  table { font-size: 8.5pt; }
  tr, figure, .claims li { break-inside: avoid; }
  thead { display: table-header-group; }
  h2, h3 { break-after: avoid; }
  img { max-height: 20cm; width: auto; }
}
"""

# Sorts the rows of a table by the column whose head is pressed, or, where heads are hidden, by the one chosen from a
# list. Numbers by the first number of the cell; what is no number ("not run", a dash) comes last either way.
SCRIPT = """
for (const table of document.querySelectorAll(".table table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const initial = [...body.rows];
  const number = text => { const found = text.replace(/,/g, "").match(/^[-\\u2212+]?\\d+(\\.\\d+)?/);
    return found ? parseFloat(found[0].replace("\\u2212", "-")) : null; };
  const sort = (column, descending) => {
    const numeric = heads[column].classList.contains("number");
    const key = row => { const text = row.cells[column].textContent.trim();
      return numeric ? number(text) : text === "\\u2013" ? null : text.toLowerCase(); };
    const rows = initial.map(row => [key(row), row]);
    rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) :
      (descending ? -1 : 1) * (numeric ? a - b : a < b ? -1 : a > b ? 1 : 0));
    body.append(...rows.map(([, row]) => row));
    heads.forEach(head => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", descending ? "descending" : "ascending");
  };
  const label = document.createElement("label"), select = document.createElement("select");
  label.className = "sort";
  label.append("sort by ", select);
  select.append(new Option("the table's own order", ""));
  heads.forEach((head, column) => {
    const button = document.createElement("button"), numeric = head.classList.contains("number");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    // Numbers from the largest, words from A; pressed again, the other way round.
    button.addEventListener("click", () => sort(column, (head.getAttribute("aria-sort") || "none") === "none" ? numeric :
      head.getAttribute("aria-sort") === "ascending"));
    select.append(new Option(button.textContent, column));
  });
  select.addEventListener("change", () => select.value === "" ? body.append(...initial) :
    sort(+select.value, heads[select.value].classList.contains("number")));
  table.before(label);
}
"""
