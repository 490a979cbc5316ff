// The first screen: loss and accuracy, and why they moved between the two epochs that are chosen.

function firstScreen() {
  const chart = report.picture ? pictureFigure(report.picture, "h3", markChoice, true) : null;
  if (chart) {
    chart.clicked = (event) => {
      const point = event.points.find((p) => typeof p.x === "number");
      if (point) choose({ epoch: point.x });
    };
  }
  const headline = el("div", { class: "headline" });
  const details = el("div", { class: "details" });
  const node = el("section", { id: "why", "aria-labelledby": "why-title" },
    el("div", { class: "first" }, headline, chart ? el("div", { class: "chart" }, chart.node) : null), details);
  let bar = null;
  const show = (what) => {
    if (!what || what.has("split") || what.has("pair")) {
      if (bar) forget(bar);
      bar = showVerdict(headline, details);
    }
    if (chart && what) update(chart);
    if (what && (what.has("split") || what.has("pair"))) announce(headline.querySelector("h2").textContent);
  };
  show(null);
  onChoice(show);
  return node;
}

// In the picture of loss and accuracy, shade the pair and mark the epoch that are chosen.
function markChoice(layout) {
  const pair = currentPair();
  const shapes = (layout.shapes || []).map((shape) =>
    shape.type === "rect" && pair ? { ...shape, x0: pair.from, x1: pair.to } : shape);
  if (choice.epoch !== null && currentSplit().epochs.length > 1) {
    shapes.push({
      type: "line", xref: "x", yref: "paper", x0: choice.epoch, x1: choice.epoch, y0: 0, y1: 1,
      line: { width: 1, dash: "dot", color: "#7F7F7F" },
    });
  }
  layout.shapes = shapes;
}

// On a narrow screen the numbers beside the bars need more of it.
function roomForNumbers(layout, data, plot) {
  const [low, high] = (layout.xaxis && layout.xaxis.range) || [];
  if (plot.clientWidth > NARROW || !Number.isFinite(low) || !Number.isFinite(high)) return;
  const room = 0.16 * (high - low);
  layout.xaxis.range = [low - room, high + room];
}

// Fill both places; return the picture of the causes, where there is one.
function showVerdict(headline, details) {
  const split = currentSplit();
  headline.replaceChildren();
  details.replaceChildren();
  if (choice.pair === null) return showAlone(split, headline);
  const verdict = split.verdicts[choice.pair];
  const pair = currentPair();
  if (!verdict) return showAccount(split, pair, headline);
  append(headline, [
    el("p", { class: "kicker" }, pair.why ? `Epochs ${pair.label}: ${pair.why}` : `Epochs ${pair.label}`),
    el("h2", { id: "why-title" }, headlineOf(verdict.headline)), tiles(verdict)]);
  let bar = null;
  if (verdict.rows.length && split.causes.frames[choice.pair]) {
    bar = pictureFigure({ ...split.causes, how: "" }, "h3", roomForNumbers);
    bar.node.querySelector("figcaption").className = "unseen"; // the causes below say the same
    headline.append(bar.node);
  }
  append(headline, verdict.notes.map((note) => el("p", { class: "note" }, said(note))));
  append(details, [causeCards(verdict), findingList(verdict)]);
  return bar;
}

function showAlone(split, headline) {
  append(headline, [
    el("h2", { id: "why-title" }, split.epoch === null ? "No epoch to look into" : `Epoch ${epochLabel(split.epoch)} alone`),
    el("ul", { class: "alone" }, split.alone.map((text) => el("li", {}, said(text)))),
    split.epoch === null ? null : el("p", { class: "note" },
      "There is one epoch with stored scores, so nothing is said of what changed and for whom.")]);
  return null;
}

function showAccount(split, pair, headline) {
  const account = split.accounts[pair.key];
  append(headline, [
    el("p", { class: "kicker" }, `Epochs ${pair.label}`),
    el("h2", { id: "why-title" }, headlineOf(account.headline)),
    el("p", { class: "note" }, `${account.why} `, el("code", {}, account.command))]);
  return null;
}

function tiles(verdict) {
  const tile = (title, value, unit) => el("div", {}, el("dt", {}, title), el("dd", {}, value, " ", el("span", {}, unit)));
  return el("dl", { class: "tiles" },
    verdict.delta_loss === null ? null : tile("Loss", fixed(verdict.delta_loss, 4, true), "nats"),
    verdict.delta_accuracy === null ? null : tile("Accuracy", fixed(100 * verdict.delta_accuracy, 2, true), "points"),
    tile("Samples", verdict.n.toLocaleString("en-US"), "in both"));
}

function causeCards(verdict) {
  if (!verdict.causes.length) return null;
  return [el("h3", { class: "unseen" }, "Causes"),
    el("ol", { class: "causes" }, verdict.causes.map((cause) => el("li", {},
      el("h4", {}, cause.title, el("span", { class: "nats" }, signedNats(cause.nats))),
      el("p", {}, `${sentenceOf(cause.evidence)}`),
      el("p", { class: "advice" }, el("strong", {}, "Try: "), said(cause.advice)),
      sampleIds(cause),
      el("p", { class: "note" }, said(cause.numbers).replace(/(?<=e)-(?=\d)/, MINUS)))))];
}

// What begins with the name of a split is left as it is; very long names are cut.
function headlineOf(text) {
  const shown = said(text.replace(/[^\s:;,]{80,}/g, (word) => `${word.slice(0, 60)}…`));
  return shown.startsWith("from epoch ") ? `F${shown.slice(1)}` : shown;
}

function sentenceOf(text) {
  const shown = said(text);
  return `${shown.charAt(0).toUpperCase()}${shown.slice(1)}${/[.!?]$/.test(shown) ? "" : "."}`;
}

function sampleIds(cause) {
  if (!cause.ids.length) return null;
  return el("div", { class: "ids" }, el("span", {}, "Samples "),
    cause.ids.map((id, i) => [i ? ", " : "", idOf(id, currentSplit().links)]), " ",
    copyButton("Copy ids", `ids of ${cause.title}`, () => cause.ids.join("\n")));
}

function findingList(verdict) {
  if (!verdict.findings.length) return null;
  return [el("h3", {}, "Also"),
    el("ul", { class: "findings" }, verdict.findings.map((finding) => el("li", {}, sentenceOf(finding.sentence))))];
}
