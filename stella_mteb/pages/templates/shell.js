"use strict";
// Sorts and searches tables. The page's own script follows, and uses the functions in `page`.
const page = (() => {
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const status = document.getElementById("status");

  // The sort key of a cell: its data-value, else its text. A gap is "", and sorts last in both directions.
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value ?? cell.textContent.trim();
  };

  const compare = (a, b, number, falling) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const difference = number ? Number(a) - Number(b) : collator.compare(a, b);
    return falling ? -difference : difference;
  };

  const sort = (table, header, falling) => {
    const number = header.dataset.sort === "number";
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
      button.addEventListener("click", () => {
        // The first click sorts figures in descending order, names and ranks in ascending order.
        const before = header.getAttribute("aria-sort");
        sort(table, header, before ? before === "ascending" : header.dataset.first === "high");
      });
      header.append(button);
    }
  }

  // Returns whether a text contains any of the comma-separated words of a query.
  const found = (asked, text) => {
    const words = asked.toLowerCase().split(",").map((one) => one.trim()).filter(Boolean);
    return words.length === 0 || words.some((one) => text.toLowerCase().includes(one));
  };

  for (const tools of document.querySelectorAll(".tools[hidden]")) tools.hidden = false;
  return { sort, found, status };
})();
