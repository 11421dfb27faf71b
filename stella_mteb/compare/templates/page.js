{
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
  show();
}
