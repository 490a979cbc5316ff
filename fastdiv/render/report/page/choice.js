// What the reader has chosen: a split, a pair of epochs, an epoch. It stands in the address, so
// that it can be linked.

const choice = { split: 0, pair: null, epoch: null };
const listeners = [];
const REST = 300; // ms between two changes of the address: browsers refuse very many
let report = null;
let resting = null;

function currentSplit() {
  return report.splits[choice.split];
}

function currentPair() {
  return currentSplit().pairs.find((pair) => pair.key === choice.pair) || null;
}

function epochLabel(epoch) {
  const found = currentSplit().epochs.find((e) => e.epoch === epoch);
  return found ? found.label : String(epoch);
}

function nearestEpoch(epochs, wanted) {
  return epochs.reduce((best, epoch) =>
    best === null || Math.abs(epoch - wanted) < Math.abs(best - wanted) ? epoch : best, null);
}

function onChoice(listener) {
  listeners.push(listener);
}

// Change what is chosen; `what` says to listeners which of "split", "pair", "epoch" changed.
function choose(change) {
  const what = new Set();
  if ("split" in change && change.split !== choice.split && report.splits[change.split]) {
    choice.split = change.split;
    what.add("split");
  }
  const split = currentSplit();
  if (what.has("split")) {
    const same = split.pairs.find((pair) => pair.key === choice.pair);
    if (!same) choice.pair = split.pair;
    const epochs = split.epochs.map((e) => e.epoch);
    if (choice.epoch === null) choice.epoch = split.epoch;
    else if (!epochs.includes(choice.epoch)) choice.epoch = nearestEpoch(epochs, choice.epoch);
  }
  if ("pair" in change && change.pair !== choice.pair) {
    if (split.pairs.some((pair) => pair.key === change.pair)) {
      choice.pair = change.pair;
      what.add("pair");
    }
  }
  if ("epoch" in change && Number.isFinite(change.epoch)) {
    const epoch = nearestEpoch(split.epochs.map((e) => e.epoch), change.epoch);
    if (epoch !== choice.epoch) {
      choice.epoch = epoch;
      what.add("epoch");
    }
  }
  if (what.size === 0) return;
  if (resting === null) writeAddress();
  else resting.late = true;
  for (const listener of listeners) listener(what);
}

// Write the choice into the address, and what is chosen meanwhile after a rest.
function writeAddress() {
  history.replaceState(null, "", `#${addressOfChoice()}`);
  const rest = { late: false };
  resting = rest;
  setTimeout(() => {
    if (resting !== rest) return;
    resting = null;
    if (rest.late) writeAddress();
  }, REST);
}

function addressOfChoice() {
  const said = new URLSearchParams();
  if (report.splits.length > 1) said.set("split", currentSplit().name);
  const pair = currentPair();
  if (pair) said.set("pair", `${pair.from},${pair.to}`);
  if (choice.epoch !== null) said.set("epoch", String(choice.epoch));
  return said.toString();
}

// Read the choice from the address; what is not there in the report is passed over.
function choiceOfAddress() {
  const hash = location.hash.slice(1);
  if (!hash.includes("=")) return {};
  const said = new URLSearchParams(hash);
  const found = {};
  if (said.has("split")) {
    const place = report.splits.findIndex((split) => split.name === said.get("split"));
    if (place >= 0) found.split = place;
  }
  if (said.has("pair")) found.pair = said.get("pair").replace(",", "→");
  if (/^-?\d+$/.test(said.get("epoch") || "")) found.epoch = Number(said.get("epoch"));
  return found;
}

function startChoice(data) {
  report = data;
  choice.split = data.split;
  choice.pair = currentSplit().pair;
  choice.epoch = currentSplit().epoch;
  choose(choiceOfAddress());
  addEventListener("hashchange", () => {
    resting = null; // what the reader asks for holds, not what is yet to be written
    choose(choiceOfAddress());
  });
}
