// Sort tables of the class "sortable" by a click on the head of a column.
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
  const isMissing = (row) => Number.isNaN(readCell(row, column));
  const rows = [...body.rows];
  const found = rows.filter((row) => !isMissing(row));
  found.sort((a, b) => compare(readCell(a, column), readCell(b, column)) * (isUp ? 1 : -1));
  body.append(...found, ...rows.filter(isMissing));
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
