// Sorts the rows of a table by the column whose head is pressed or, where heads are hidden, that is chosen from a list.
// Numbers by the first number of the cell; what is no number ("not run", a dash) comes last in either order.
for (const table of document.querySelectorAll(".table table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  const initial = [...body.rows];
  const number = text => { const found = text.replace(/,/g, "").match(/^[-\u2212+]?\d+(\.\d+)?/);
    return found ? parseFloat(found[0].replace("\u2212", "-")) : null; };
  const sort = (column, descending) => {
    const numeric = heads[column].classList.contains("number");
    const key = row => { const text = row.cells[column].textContent.trim();
      return numeric ? number(text) : text === "\u2013" ? null : text.toLowerCase(); };
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
