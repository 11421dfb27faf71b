"use strict";
(() => {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const status = document.getElementById("status");

  // A cell's value as data, else as text; "" for a gap, which stands last whichever way a column is sorted.
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };

  const compare = (a, b, number, falling) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const difference = number ? Number(a) - Number(b) : collator.compare(a, b);
    return falling ? -difference : difference;
  };

  const sort = (table, header) => {
    const number = header.dataset.sort === "number";
    const before = header.getAttribute("aria-sort");
    // Figures begin with the highest, names and ranks with the first.
    const falling = before ? before === "ascending" : header.dataset.first === "high";
    for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const column = header.cellIndex;
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [keyOf(row, column), row]);
    rows.sort(([a], [b]) => compare(a, b, number, falling)); // stable: equal rows keep their order
    body.append(...rows.map(([, row]) => row));
    status.textContent = `Sorted by ${header.textContent.trim()}, ${falling ? "descending" : "ascending"}`;
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.querySelectorAll("th[data-sort]")) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, header));
      header.append(button);
    }
  }

  const filter = document.getElementById("filter");
  const choice = filter.querySelector("select");
  const show = () => {
    const rows = [...document.querySelectorAll("tr[data-type]")];
    for (const row of rows) row.hidden = choice.value !== "" && row.dataset.type !== choice.value;
    const tasks = rows.filter((row) => row.closest("table").id === "tasks-table");
    const left = tasks.filter((row) => !row.hidden).length;
    filter.querySelector("output").textContent = `${left} of ${tasks.length} tasks`;
  };
  choice.addEventListener("change", show);
  filter.hidden = false;
  show();
})();
