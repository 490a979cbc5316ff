// Tables: sorted by their headings, searched, copied; long ones are shown in parts.

const SHOWN = 100;
const MORE = 400;
const LONG = 36; // letters, from which on a cell has lines
const PRINTED = "On paper: the first 30 rows and 12 columns.";

function tableBlock(content, level) {
  const table = {
    content, sort: null, down: false, search: "", shown: SHOWN,
    body: el("tbody"), paper: el("p", { class: "paper note" }, PRINTED), seen: el("p", { class: "seen" }), which: el("p", { class: "which", hidden: true }),
    count: el("p", { class: "count" }), more: el("p", { class: "more" }),
    headings: [],
  };
  const titleId = freshId("table");
  const search = el("input", {
    type: "search", "aria-label": `Search in ${content.title}`, placeholder: "Search", autocomplete: "off",
    oninput: () => {
      table.search = search.value.toLowerCase();
      table.shown = SHOWN;
      fill(table);
      announce(table.count.textContent);
    },
  });
  // Headings such as "after" stand beside others; what is taken along has each name but once.
  const names = content.columns.map((column) => column.name);
  const tools = el("div", { class: "tools" }, search,
    copyButton("Copy", content.title, () => asTabs(names, rawRows(table))),
    el("button", {
      type: "button", class: "small",
      onclick: () => saveFile(`${content.name}.csv`, asCsv(names, rawRows(table))),
    }, "Save as CSV"),
    table.count);
  const head = el("tr", {}, content.columns.map((column, i) => heading(table, column, i)));
  table.box = el("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": `Table: ${content.title}` },
    el("table", { "aria-labelledby": titleId }, el("thead", {}, head), table.body));
  table.tools = tools;
  table.node = el("div", { class: "table-block" },
    el(level, { id: titleId }, content.title),
    content.how ? el("p", { class: "how" }, content.how) : null,
    table.which, table.seen, tools, table.box, table.more, table.paper,
    content.note ? el("p", { class: "note" }, content.note) : null);
  updateTable(table);
  return table;
}

function heading(table, column, i) {
  const numeric = NUMERIC.has(column.kind);
  const button = el("button", { type: "button", onclick: () => sortBy(table, i) },
    el("span", { class: column.hint ? "hinted" : null }, column.title), el("span", { class: "way", "aria-hidden": "true" }));
  const cell = el("th", { scope: "col", class: numeric ? "number" : null, "aria-sort": "none" }, hinted(button, column.hint));
  table.headings.push(cell);
  return cell;
}

// A first click puts the largest numbers first, and text in its order.
function sortBy(table, i) {
  const numeric = NUMERIC.has(table.content.columns[i].kind);
  table.down = table.sort === i ? !table.down : numeric;
  table.sort = i;
  table.headings.forEach((cell, j) => {
    cell.setAttribute("aria-sort", j !== i ? "none" : table.down ? "descending" : "ascending");
  });
  fill(table);
}

function valuesOf(table) {
  const { content } = table;
  const key = frameKey(content);
  table.missing = Boolean(content.by) && Object.keys(content.frames).length > 0 && key === null;
  if (table.missing) return Object.fromEntries(content.columns.map((c) => [c.name, []]));
  return key === null ? content.values : { ...content.values, ...content.frames[key].values };
}

function updateTable(table) {
  const { content } = table;
  table.values = valuesOf(table);
  table.size = content.columns.length ? (table.values[content.columns[0].name] || []).length : 0;
  table.found = null;
  const key = frameKey(content);
  let which = "";
  if (table.missing) which = "This table is not there for the pair that is chosen.";
  else if (content.by === "epoch" && key !== null) {
    which = `Epoch ${epochLabel(Number(key))}`;
    if (Number(key) !== choice.epoch) which += ` (nearest to ${epochLabel(choice.epoch)} of those listed)`;
  } else if (content.by === "pair" && key !== null) which = `Epochs ${currentPair().label}`;
  table.which.textContent = which;
  table.which.hidden = which === "";
  table.seen.textContent = table.missing ? "" : said(key === null ? content.text : content.frames[key].text);
  table.tools.hidden = table.box.hidden = table.missing;
  fill(table);
}

// The rows to show, by their places: those that are searched for, in order.
function places(table) {
  const { columns } = table.content;
  let rows = Array.from({ length: table.size }, (_, row) => row);
  if (table.search) {
    table.found = table.found || rows.map((row) =>
      columns.map((c) => written(table.values[c.name][row], c.kind)).join("\n").toLowerCase());
    rows = rows.filter((row) => table.found[row].includes(table.search));
  }
  if (table.sort === null) return rows;
  const column = columns[table.sort];
  const values = table.values[column.name];
  const way = table.down ? -1 : 1;
  return rows.sort((a, b) => inOrder(values[a], values[b], NUMERIC.has(column.kind), way) || a - b);
}

const words = new Intl.Collator("en", { numeric: true });

// What is not known comes last, whichever way.
function inOrder(a, b, numeric, way) {
  const none = (x) => x === null || x === undefined;
  if (none(a) || none(b)) return none(a) - none(b);
  if (!numeric) return way * words.compare(String(a), String(b));
  const [x, y] = [asNumber(a), asNumber(b)];
  return x === y ? 0 : way * (x < y ? -1 : 1);
}

function rawRows(table) {
  return places(table).map((row) => table.content.columns.map((c) => table.values[c.name][row]));
}

function fill(table) {
  const rows = places(table);
  const { columns } = table.content;
  const links = { ...currentSplit().links, ...table.content.links };
  const shown = rows.slice(0, table.shown);
  table.body.replaceChildren(...shown.map((row) =>
    el("tr", {}, columns.map((column) => cellOf(table.values[column.name][row], column, links)))));
  table.paper.hidden = rows.length <= 30 && columns.length <= 12;
  const all = table.size.toLocaleString("en-US");
  table.count.textContent = table.search ? `${rows.length.toLocaleString("en-US")} of ${all} rows` : `${all} ${table.size === 1 ? "row" : "rows"}`;
  table.more.replaceChildren();
  const left = rows.length - shown.length;
  if (left > 0) {
    const show = (n) => () => { table.shown += n; fill(table); };
    append(table.more, [`${shown.length} shown. `,
      left > MORE ? el("button", { type: "button", class: "small", onclick: show(MORE) }, `Show ${MORE} more`) : null,
      " ", el("button", { type: "button", class: "small", onclick: show(left) }, `Show all ${rows.length.toLocaleString("en-US")}`)]);
  }
}

function cellOf(value, column, links) {
  const text = written(value, column.kind);
  if (NUMERIC.has(column.kind)) {
    return el("td", { class: "number" }, text);
  }
  const long = text.length > LONG ? " long" : "";
  if (column.kind === "id") return el("td", { class: `id${long}` }, idOf(value, links));
  return el("td", { class: `text${long}` }, text === "" ? null : name(text));
}

function idOf(value, links) {
  const text = written(value, "id");
  const address = links && Object.hasOwn(links, text) ? safeAddress(links[text]) : null;
  if (address === null) return el("code", {}, name(text));
  return el("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, el("code", {}, name(text)));
}

// Addresses come from the data: only those that cannot run anything become links.
function safeAddress(address) {
  const plain = String(address);
  if (/[\u0000-\u001f\u007f]/.test(plain)) return null;
  if (/^\s*[/\\]{2}/.test(plain)) return null; // another machine's
  const scheme = /^\s*([a-z][a-z0-9+.-]*):/i.exec(plain);
  if (scheme === null) return plain.trim() === "" ? null : plain;
  return ["http", "https", "file"].includes(scheme[1].toLowerCase()) ? plain : null;
}
