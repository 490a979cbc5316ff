// How values are written, by the kind of their column; "inf" stands for what JSON cannot hold.

const MINUS = "\u2212";
const NUMERIC = new Set(["count", "share", "points", "nats", "loss", "number", "epoch"]);

function asNumber(value) {
  if (value === "inf") return Infinity;
  if (value === "-inf") return -Infinity;
  return typeof value === "number" ? value : NaN;
}

function fixed(value, digits, sign) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? MINUS : sign ? "+" : "") + text;
}

function written(value, kind) {
  if (value === null || value === undefined) return "";
  if (kind === "bool") return value ? "yes" : "no";
  if (!NUMERIC.has(kind)) return String(value);
  const x = asNumber(value);
  if (Number.isNaN(x)) return String(value);
  if (!Number.isFinite(x)) return x > 0 ? "∞" : `${MINUS}∞`;
  if (kind === "epoch") return String(x).replace("-", MINUS);
  if (kind === "count") return x.toLocaleString("en-US").replace("-", MINUS);
  if (kind === "share") return `${fixed(100 * x, 2)}\u202f%`;
  if (kind === "points") return fixed(100 * x, 2, true);
  if (kind === "nats") return small(x, true);
  if (kind === "loss") return small(x, false);
  return plainNumber(x);
}

// Nats with four decimals, or fewer where the table has no more digits of a large number; what
// these cannot show, with two significant digits.
function small(x, sign) {
  const size = Math.abs(x);
  if (x === 0) return fixed(x, 4, sign);
  if (size >= 0.001) return fixed(x, Math.max(0, 4 - Math.max(0, Math.floor(Math.log10(size)))), sign);
  const text = Math.abs(x) >= 1e-6 ? String(Number(Math.abs(x).toPrecision(2))) : Math.abs(x).toExponential(1);
  return (x < 0 ? MINUS : sign ? "+" : "") + text.replace("e-", `e${MINUS}`);
}

function plainNumber(x) {
  if (Number.isInteger(x)) return x.toLocaleString("en-US").replace("-", MINUS);
  return String(Number(x.toPrecision(4))).replace(/-/g, MINUS);
}

function signedNats(x) {
  return `${fixed(x, 4, true)} nats`;
}
