// The bar that stays in sight: split, pair of epochs, epoch, and where to go.

function controlBar() {
  const parts = [report.splits.length > 1 ? splitControl() : null, pairControl(), epochControl(), contentsMenu()];
  const bar = el("div", { class: "controls", role: "region", "aria-label": "What is shown" }, parts);
  return bar;
}

function splitControl() {
  const select = el("select", { id: "split", onchange: () => choose({ split: Number(select.value) }) },
    report.splits.map((split, i) => el("option", { value: i }, short(split.name))));
  select.value = String(choice.split);
  onChoice(() => { select.value = String(choice.split); });
  return el("div", { class: "control" }, el("label", { for: "split" }, "Split"), select);
}

function short(text) {
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

// Who looks at a pair looks at where it ends, too.
function choosePair(key) {
  choose({ pair: key, epoch: currentSplit().pairs.find((pair) => pair.key === key).to });
}

function pairControl() {
  const select = el("select", { id: "pair", onchange: () => choosePair(select.value) });
  const step = (by) => () => {
    const { pairs } = currentSplit();
    const place = pairs.findIndex((pair) => pair.key === choice.pair) + by;
    if (pairs[place]) choosePair(pairs[place].key);
  };
  const before = el("button", { type: "button", "aria-label": "Previous pair", onclick: step(-1) }, "‹");
  const after = el("button", { type: "button", "aria-label": "Next pair", onclick: step(1) }, "›");
  const node = el("div", { class: "control pair" }, el("label", { for: "pair" }, "From → to"), before, select, after);
  const fillOptions = () => {
    const option = (pair) => el("option", { value: pair.key }, pair.why ? short(`${pair.label}: ${pair.why}`) : short(pair.label));
    const { pairs } = currentSplit();
    const marked = pairs.filter((pair) => pair.why);
    const others = pairs.filter((pair) => !pair.why);
    select.replaceChildren(
      ...(marked.length ? [el("optgroup", { label: "To look at first" }, marked.map(option))] : []),
      ...(others.length ? [el("optgroup", { label: "Each to the next" }, others.map(option))] : []));
    node.hidden = pairs.length === 0;
  };
  const show = (what) => {
    if (!what || what.has("split")) fillOptions();
    const { pairs } = currentSplit();
    const place = pairs.findIndex((pair) => pair.key === choice.pair);
    select.value = choice.pair || "";
    before.disabled = place <= 0;
    after.disabled = place >= pairs.length - 1;
  };
  show(null);
  onChoice(show);
  return node;
}

function epochControl() {
  const slider = el("input", {
    type: "range", id: "epoch", min: 0, step: 1,
    oninput: () => choose({ epoch: currentSplit().epochs[Number(slider.value)].epoch }),
  });
  const shown = el("output", { for: "epoch" });
  const node = el("div", { class: "control epoch" }, el("label", { for: "epoch" }, "Epoch"), slider, shown);
  const show = () => {
    const { epochs } = currentSplit();
    slider.max = String(Math.max(0, epochs.length - 1));
    slider.value = String(epochs.findIndex((e) => e.epoch === choice.epoch));
    const label = choice.epoch === null ? "" : epochLabel(choice.epoch);
    slider.setAttribute("aria-valuetext", `epoch ${short(label)}`);
    shown.textContent = short(label);
    node.hidden = epochs.length < 2;
  };
  show();
  onChoice(show);
  return node;
}

function contentsMenu() {
  const list = el("ul");
  const menu = el("details", { class: "control contents" }, el("summary", {}, "Contents"),
    el("nav", { "aria-label": "Contents" }, list));
  const fillList = () => {
    const entries = [{ id: "why", title: "Why" }, ...currentSplit().sections, { id: "terms", title: "Terms" }];
    list.replaceChildren(...entries.map((entry) => el("li", {}, el("a", {
      href: `#${entry.id}`,
      onclick: (event) => {
        event.preventDefault();
        menu.open = false;
        goTo(entry.id);
      },
    }, entry.title))));
  };
  fillList();
  onChoice((what) => { if (what.has("split")) fillList(); });
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); }
  });
  return menu;
}

function goTo(id) {
  const section = document.getElementById(id);
  if (!section) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  section.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  const title = section.querySelector("h2");
  if (title) { title.setAttribute("tabindex", "-1"); title.focus({ preventScroll: true }); }
}
