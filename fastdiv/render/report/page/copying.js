// Taking tables along: to the clipboard as tab-separated text, or to a file as CSV.

// Spreadsheets run text that starts like a formula; an apostrophe before it makes it text.
function harmless(text) {
  return /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text) ? `'${text}` : text;
}

function raw(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (value === "inf" || value === "-inf") return value === "inf" ? "inf" : "'-inf";
  return harmless(String(value));
}

function csvField(text) {
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function asCsv(names, rows) {
  const lines = [names, ...rows.map((row) => row.map(raw))];
  return lines.map((line) => line.map(csvField).join(",")).join("\r\n") + "\r\n";
}

// A quote would open a cell that ends at the next one, maybe rows below.
function tabField(text) {
  const line = text.replace(/[\t\r\n]+/g, " ");
  return line.includes('"') ? csvField(line) : line;
}

function asTabs(names, rows) {
  return [names, ...rows.map((row) => row.map(raw))].map((line) => line.map(tabField).join("\t")).join("\n");
}

async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyBySelection(text); // older browsers, and pages that may not use the clipboard
  }
  announce(`${what} copied`);
}

function copyBySelection(text) {
  const area = el("textarea", { class: "unseen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function copyButton(words, what, text) {
  const button = el("button", { type: "button", class: "small" }, words);
  button.addEventListener("click", async () => {
    await copyText(text(), what);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = words; }, 1500);
  });
  return button;
}

function saveFile(fileName, text) {
  const address = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  const link = el("a", { href: address, download: fileName });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
