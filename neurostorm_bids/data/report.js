// Sort tables of the class "sortable" by the heads of their columns; filter those of the class
// "filterable" by a text.
"use strict";

function readCell(row, column) {
  const cell = row.cells[column];
  const value = cell.dataset.value;
  return value === undefined ? cell.textContent : value === "" ? NaN : Number(value);
}

function compare(a, b) {
  if (typeof a === "string" || typeof b === "string") {
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }
  return a - b;
}

function sortRows(body, column, isUp) {
  const pairs = [...body.rows].map((row) => [readCell(row, column), row]);
  const found = pairs.filter(([value]) => !Number.isNaN(value));
  found.sort((a, b) => compare(a[0], b[0]) * (isUp ? 1 : -1));
  const missing = pairs.filter(([value]) => Number.isNaN(value));
  body.append(...[...found, ...missing].map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => {
      const isUp = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", isUp ? "ascending" : "descending");
      sortRows(table.tBodies[0], column, isUp);
    });
    head.append(button);
  });
}

for (const table of document.querySelectorAll("table.filterable")) {
  const rows = [...table.tBodies[0].rows].map((row) => [row, row.textContent.toLowerCase()]);
  const bar = document.createElement("p");
  const label = document.createElement("label");
  const field = document.createElement("input");
  const told = document.createElement("span");
  bar.className = "filter";
  field.type = "search";
  label.append("Show only rows with ", field);
  told.setAttribute("role", "status");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let nShown = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      nShown += row.hidden ? 0 : 1;
    }
    told.textContent = words.length ? `${nShown} of ${rows.length} rows` : "";
  });
  bar.append(label, " ", told);
  table.closest(".scroll").before(bar);
}
