{
  const board = document.getElementById("leaderboard-table");
  const tasks = document.getElementById("tasks-table");
  const tools = document.getElementById("tools");
  const search = document.getElementById("search");
  const choice = document.getElementById("type");
  const duels = document.getElementById("duels-table");
  const against = document.getElementById("against");
  const strip = 190; // width of a row's picture

  const columnOf = (name) => [...board.tHead.rows[0].cells].find((cell) => cell.dataset.name === name).cellIndex;
  const [mean, rank] = [columnOf("mean"), columnOf("rank")];
  // In the initial order of the leaderboard, which is also the order of the task columns and of the duels.
  const systems = [...board.tBodies[0].rows].map((row) => ({
    row,
    mark: row.querySelector(".picture .mark"),
    at: row.querySelector(".picture .mark")?.getAttribute("cx"),
    before: [mean, rank].map((column) => [row.cells[column].textContent, row.cells[column].dataset.value]),
  }));

  const write = (cell, [text, value]) => {
    cell.textContent = text;
    cell.dataset.value = value;
  };

  const many = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

  const tell = () => {
    const rows = [...tasks.tBodies[0].rows];
    const left = rows.filter((row) => !row.hidden).length;
    const shown = systems.filter(({ row }) => !row.hidden).length;
    tools.querySelector("output").textContent =
      `${shown} of ${many(systems.length, "system")}, ${left} of ${many(rows.length, "task")}`;
  };

  // Recompute the means over the visible tasks and the ranks by these means, and move the circles.
  const recompute = () => {
    const counted = [...tasks.tBodies[0].rows].filter((row) => "counts" in row.dataset && !row.hidden);
    const means = systems.map((_, i) => {
      const values = counted.map((row) => row.cells[i + 1].dataset.value || (row.cells[i + 1].dataset.estimate ?? ""));
      return values.includes("") ? NaN : values.reduce((sum, one) => sum + Number(one), 0) / values.length;
    });
    const known = means.filter((one) => !Number.isNaN(one));
    const [low, high] = [Math.min(...known), Math.max(...known)];
    systems.forEach(({ row, mark }, i) => {
      const has = !Number.isNaN(means[i]);
      const place = 1 + known.filter((one) => one > means[i]).length;
      write(row.cells[mean], has ? [(100 * means[i]).toFixed(2), means[i]] : ["-", ""]);
      write(row.cells[rank], has ? [place, place] : ["-", ""]);
      mark?.setAttribute("cx", has ? 12 + ((means[i] - low) / (high - low || 1)) * (strip - 24) : -9);
    });
    return counted.length;
  };

  const restore = () => {
    for (const { row, mark, at, before } of systems) {
      write(row.cells[mean], before[0]);
      write(row.cells[rank], before[1]);
      mark?.setAttribute("cx", at);
    }
  };

  const filterTypes = () => {
    const type = choice.value;
    for (const row of document.querySelectorAll("tr[data-type]")) row.hidden = type !== "" && row.dataset.type !== type;
    board.classList.toggle("filtered", type !== "");
    const note = document.getElementById("filtered");
    note.hidden = type === "";
    if (type === "") restore();
    else {
      const count = recompute();
      note.textContent =
        `Means and ranks are now over only the ${many(count, "task")} of type ${type}. ` +
        "Ranks follow these means; significance was tested over all tasks.";
    }
    page.sort(board, board.tHead.rows[0].cells[mean], true);
    tell();
  };

  const find = () => {
    systems.forEach(({ row }, i) => {
      row.hidden = !page.found(search.value, row.cells[0].textContent);
      for (const line of tasks.rows) line.cells[i + 1].hidden = row.hidden;
    });
    for (const row of duels?.tBodies[0].rows ?? []) row.hidden = !page.found(search.value, row.cells[0].textContent);
    tell();
  };

  // Add a checkbox for each column of the leaderboard except the first.
  for (const header of [...board.tHead.rows[0].cells].slice(1)) {
    const box = document.createElement("input");
    const label = document.createElement("label");
    box.type = "checkbox";
    box.autocomplete = "off";
    box.checked = true;
    box.addEventListener("change", () => {
      for (const row of board.rows) row.cells[header.cellIndex].hidden = !box.checked;
    });
    label.append(box, ` ${header.textContent.trim()}`);
    document.getElementById("columns").append(label);
  }

  const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);

  // Build a row of the duels table: the chosen system minus another. `figures` are the higher placed minus the lower.
  const duelRow = (other, figures, turned, alpha) => {
    let [difference, low, high, p, number, won, even, lost, lacking, apart] = figures;
    if (turned) {
      [difference, low, high] = [difference, high, low].map((one) => (one === null ? null : -one));
      [won, lost] = [lost, won];
    }
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.append(...systems[other].row.cells[0].cloneNode(true).childNodes);
    row.append(head);
    const add = (kind, text, value) => {
      const cell = row.insertCell();
      cell.className = kind;
      cell.textContent = text;
      if (value !== undefined) cell.dataset.value = value ?? "";
    };
    add("number", difference === null ? "-" : signed(difference), difference);
    add("line", low === null || high === null ? "-" : `${signed(low)} to ${signed(high)}`);
    add("number", p === null ? "-" : p < 0.001 ? "< 0.001" : p.toFixed(3), p);
    add("line", p === null || p >= alpha ? "not significant" : difference > 0 ? "better" : "worse");
    for (const one of [number, won, even, lost]) add("number", one, one);
    const left = [[lacking, "lacking"], [apart, "on other data"]].filter(([count]) => count);
    add("line", left.map((one) => one.join(" ")).join(", ") || "-");
    return row;
  };

  const compareWith = () => {
    const body = duels.tBodies[0];
    const all = JSON.parse(body.dataset.duels);
    const [count, chosen, alpha] = [systems.length, Number(against.value), Number(body.dataset.alpha)];
    const rows = [];
    for (let other = 0; other < count; other += 1) {
      const [i, j] = [Math.min(chosen, other), Math.max(chosen, other)];
      const figures = i < j && all[i * count - (i * (i + 1)) / 2 + j - i - 1];
      if (figures) rows.push(duelRow(other, figures, chosen > other, alpha));
    }
    body.replaceChildren(...rows);
    document.getElementById("against-name").textContent = against.selectedOptions[0].text;
    for (const header of duels.tHead.querySelectorAll("[aria-sort]")) header.removeAttribute("aria-sort");
    find();
  };

  search.addEventListener("input", find);
  choice.addEventListener("change", filterTypes);
  against?.addEventListener("change", compareWith);
  tell();
}
