{
  const { models, references } = JSON.parse(document.getElementById("data").textContent);
  const search = document.getElementById("search");
  const output = document.querySelector("#clips .tools output");

  // Texts are inserted with textContent only, so markup in them has no effect.
  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const joined = (parent, ...children) => {
    parent.append(...children.flatMap((child) => [child, " "]));
    return parent;
  };
  const numbered = (number, text, ...flags) => {
    const item = joined(make("li"), text, ...flags);
    item.value = number + 1;
    return item;
  };
  const told = { unmatched: "unmatched", contradicting: "may contradict", disputed: "contradicts (NLI)", displaced: "out of order" };
  const flag = (kind) => make("em", told[kind], `flag ${kind}`);
  const cosine = (hundredths) => (hundredths / 100).toFixed(2).replace("-", "\u2212");

  const matchesOf = (one, reference) => {
    const table = make("table", undefined, "matches");
    table.append(make("caption", `Sentences of the summary of clip ${one.clip} and their matches`, "hidden"));
    const head = table.createTHead().insertRow();
    for (const [text, kind] of [["Summary"], ["Cosine", "number"], ["Closest in the reference"]]) {
      const cell = make("th", text, kind);
      cell.scope = "col";
      head.append(cell);
    }
    const body = table.createTBody();
    one.texts.forEach((text, i) => {
      const flags = Object.keys(one.marks).filter((kind) => one.marks[kind].includes(i)).map(flag);
      const row = body.insertRow();
      for (const item of [numbered(i, text, ...flags), null, numbered(one.best[i], reference[one.best[i]])]) {
        const cell = row.insertCell();
        if (item) cell.append(joined(make("ol"), item));
        else [cell.className, cell.textContent] = ["number", cosine(one.cosines[i])];
      }
    });
    return table;
  };

  const write = (details, one) => {
    const reference = references[one.reference];
    const [, coarse, faithfulness, coverage, order] = one.figures;
    const which = reference.of > 1 ? ` Reference ${reference.number} of ${reference.of}, the closest.` : "";
    const figures = `Whole text ${coarse}, faithfulness ${faithfulness}, coverage ${coverage}, order ${order}.${which}`;
    details.append(make("p", figures, "quiet"), matchesOf(one, reference.texts));
    if (one.missed.length === 0) return;
    const list = make("ol", undefined, "missed");
    one.missed.forEach((j, k) => {
      list.append(numbered(j, reference.texts[j], make("span", `closest ${cosine(one.recalled[k])}`, "quiet")));
    });
    details.append(make("h4", "In the reference, missing from the summary"), list);
  };

  const countOf = (some, all, what, kind) => make("span", `${some.length} of ${all.length} ${what}`, kind);

  const entry = (one) => {
    const reference = references[one.reference].texts;
    const details = make("details", undefined, "clip");
    const summary = joined(
      make("summary"),
      make("strong", one.clip),
      make("span", one.figures[0]),
      ...Object.entries(one.marks).map(([kind, rows]) => countOf(rows, one.texts, told[kind], kind)),
      ...(one.missed.length ? [countOf(one.missed, reference, "of the reference missing", "quiet")] : []),
    );
    details.append(summary);
    details.addEventListener("toggle", () => details.children.length === 1 && write(details, one));
    return details;
  };

  const sections = [...document.querySelectorAll("details.model")];

  const find = () => {
    let [shown, all] = [0, 0];
    sections.forEach((section, i) => {
      section.querySelectorAll(".clip").forEach((details, k) => {
        const one = models[i][k];
        details.hidden = !page.found(search.value, `${one.clip} ${one.texts.join(" ")}`);
        shown += !details.hidden;
        all += 1;
      });
    });
    output.textContent = search.value.trim() ? `${shown} of ${all} clips of the models that are open` : "";
  };

  const openTarget = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target?.matches("details.model")) target.open = true;
  };

  sections.forEach((section, i) => {
    section.addEventListener("toggle", () => {
      if (section.children.length === 1) section.append(...models[i].map(entry));
      find();
    });
  });
  search.addEventListener("input", find);
  addEventListener("hashchange", openTarget);
  openTarget();
}
