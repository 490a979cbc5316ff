// Elements are made from text alone: nothing that comes from the data is ever read as markup.

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === "") continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

// A name from the data: whichever way its letters run, what stands beside it stays in place.
function name(text, attributes) {
  const shown = String(text);
  const cut = shown.length > 80 ? `${shown.slice(0, 79)}…` : shown;
  return el("bdi", { title: cut === shown ? null : shown.slice(0, 400), ...attributes }, cut);
}

// A sentence that may hold very long names, and such as would turn round what comes after them.
// A number that is negative has the sign of one.
function said(text) {
  const shown = String(text).replace(/[\u202a-\u202e]/g, "").replace(/(?<=[\s(])-(?=\d+\.\d)/g, MINUS);
  return shown.length > 4000 ? `${shown.slice(0, 4000)}…` : shown;
}

let made = 0;

function freshId(what) {
  made += 1;
  return `${what}-${made}`;
}

// Say to those who listen what was done.
function announce(text) {
  document.getElementById("said").textContent = text;
}

// Explanations of headings, shown while they are pointed at or focused.
function hinted(node, text) {
  if (!text) return node;
  const described = el("span", { id: freshId("hint"), class: "unseen" }, text);
  node.setAttribute("aria-describedby", described.id);
  node.append(described);
  const show = () => showHint(node, text);
  node.addEventListener("mouseenter", show);
  node.addEventListener("focus", show);
  node.addEventListener("mouseleave", hideHint);
  node.addEventListener("blur", hideHint);
  return node;
}

function showHint(node, text) {
  const hint = document.getElementById("hint");
  hint.textContent = text;
  hint.hidden = false;
  const at = node.getBoundingClientRect();
  const box = hint.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left), document.documentElement.clientWidth - box.width - 8);
  const below = at.bottom + 6 + box.height < window.innerHeight;
  hint.style.left = `${Math.max(8, left)}px`;
  hint.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - 6 - box.height)}px`;
}

function hideHint() {
  document.getElementById("hint").hidden = true;
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideHint();
});
document.addEventListener("scroll", hideHint, { passive: true, capture: true });
